"""The report: one inert page, its sentences derived from figures, whatever is missing."""

import copy
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from scipy import stats

from longplay import report
from longplay.display import Bounded, decimal, with_interval
from longplay.errors import DataError
from longplay.estimate import Estimate
from longplay.intervals import wilson
from longplay.report import bundle, charts, inert_json
from longplay.report.phrases import (
    ZERO,
    change,
    coverage_words,
    difference,
    verdict,
)
from longplay.report.policy_names import policy_names
from longplay.report.sections import experiment
from longplay.report.sections.outcomes import reached
from longplay.report.sections.reward import clear_best, comparison_words
from longplay.results import RunResults
from longplay.results.outcome_figures import MaturityDay
from longplay.results.record import from_json
from longplay.results.reward_figures import EarlyRewardFigures, ModelScore
from longplay.run_policies import run_policies

POLICY_COLOURS = {record.name: record.colour for record in run_policies()}
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
HOSTILE = "</script><img src=x onerror=alert(1)><!--"


def render(name: str, results: dict) -> str:
    """The page of results as their files hold them."""
    return report.render(name, RunResults.of_json(results))


def loop_of(results: dict) -> experiment.Loop:
    loop = experiment.collect(RunResults.of_json(results))
    assert loop is not None
    return loop


def estimate(value: float, half: float, n: int = 400, n_eff: float | None = None) -> dict:
    """An estimate whose 95% interval is the value ± half."""
    std_error = half / stats.t.ppf(0.975, n - 1)
    return Estimate(value, std_error, n, n if n_eff is None else n_eff, "test").as_json()


def signal(label: str = "habit@ba93f33d") -> dict:
    name = label.split("@")[0]
    curve = [{"day": day, "value": 0.2 * day / 28} for day in range(1, 29)]
    known = {
        "as_of": "2026-03-01T00:00:00+00:00",
        "entries": 600,
        "mature": 300,
        "truncated": 0,
        "base_rate": estimate(0.22, 0.02),
    }
    return {
        "label": label,
        "sentence": f"{name}: the share that comes back",
        "unit": "user x item",
        "binary": True,
        "days": 28,
        "toml": f"[signals.{name}]\nwindow = [1, 28]\n",
        "as_of": "2026-04-09T00:00:00+00:00",
        "entries": 1000,
        "mature": 750,
        "truncated": 0,
        "base_rate": estimate(0.2, 0.01),
        "maturity": curve,
        "at_training": known,
    }


def compared(model: str, difference: float, error: float, mae: float = 0.05) -> dict:
    return {
        "model": model,
        "entries": 900,
        "loss": 0.4 + difference,
        "loss_se": 0.01,
        "rmse": 0.3,
        "concordance": 0.7,
        "difference": difference,
        "difference_se": error,
        "item_mae": mae,
        "items": 40,
    }


def calibrated(share: float = 0.8) -> dict:
    bins = [
        {"predicted": k / 10, "realised": k / 10 + 0.01, "std_error": 0.01, "n": 50}
        for k in range(10)
    ]
    return {
        "coverage": {"0.5": 0.5, "0.95": share},
        "groups": 100,
        "min_entries": 50,
        "pit": [90, 110] * 5,
        "reliability": bins,
        "mae": 0.03,
        "prior_mae": 0.1,
        "sharpness": 0.02,
        "prior_sharpness": 0.1,
    }


def slot_score(model: str, mean: float, difference: float, error: float) -> dict:
    picked = {
        "mean": mean,
        "mean_se": 0.002,
        "difference": difference,
        "difference_se": error,
    }
    return {"model": model, "top": picked, "best": picked | {"difference": 0.0}}


def pair(policy: str, than: str, difference: dict, metric: str = "true value per slot") -> dict:
    return {"policy": policy, "than": than, "metric": metric, "difference": difference}


def policies(gain: float = 0.02, half: float = 0.01) -> dict:
    names = {"popular": 0.04, "start": 0.05, "reward-weighted": 0.055, "reinforced": 0.05 + gain}
    metrics = [f"{name}@{k}" for name in ("HR", "NDCG", "habit NDCG") for k in (1, 5, 10, 50)]
    rows = [
        {"policy": name, "metric": metric, "value": value, "estimate": estimate(value, 0.01)}
        for name, value in names.items()
        for metric in metrics
    ]
    rows += [
        {"policy": name, "metric": metric, "value": 0.3, "estimate": None}
        for name in names
        for metric in ("coverage@10", "cold-start share@10")
    ]
    pairs = [
        ("start", "popular"),
        ("reinforced", "start"),
        ("reward-weighted", "start"),
        ("reinforced", "reward-weighted"),
    ]
    gaps = [
        {"policy": a, "than": b, "metric": metric, "difference": estimate(gain, half)}
        for a, b in pairs
        for metric in ("NDCG@10", "habit NDCG@10")
    ]
    true = {
        "users": 400,
        "policies": [
            {"policy": name, "value": estimate(value, 0.01)} for name, value in names.items()
        ],
        "differences": [pair(a, b, estimate(gain, half)) for a, b in pairs],
    }
    return {
        "not_estimable": {"experiment": "no experiment was run on this log"},
        "signal": "habit@ba93f33d",
        "visits": 500,
        "users": 400,
        "discoveries": 800,
        "habits": 90,
        "new_to_catalogue": 0.1,
        "ranking": rows,
        "differences": gaps,
        "true_value": true,
    }


def full(title: str = "A plain title") -> dict:
    """A small simulated run with every stage."""
    steps = [
        {"step": k, "reward": 0.02 + k / 1e3, "kl": k / 50, "kl_p95": k / 30, "zero_advantage": 0.1}
        for k in range(1, 31)
    ]
    log = {
        "events": 5000,
        "users": 300,
        "items": 60,
        "decisions": 900,
        "quarantined": 7,
        "first": "2026-01-01 06:00:00+00:00",
        "last": "2026-02-09 20:00:00+00:00",
        "watermark": "2026-02-10T00:00:00+00:00",
        "kinds": {"play": 4000, title: 1000},
        "origins": {"organic": 5000},
        "activity": [
            {"day": f"2026-01-{k:02}", "users": 50 + k, "events": 200} for k in range(1, 21)
        ],
        "retention": [{"week": k, "share": 1 / (k + 1), "users": 100} for k in range(6)],
        "rejected": {title: 7},
        "notes": [title, ""],
        "source": {"format": "simulated world", "name": title, "rows": 5007},
        "has_origin": True,
        "has_decisions": True,
        "long_days": None,
        "creators": "",
        "exclude": "none",
    }
    reward = {
        "label": "habit@ba93f33d",
        "chosen": "progressive",
        "age": 7,
        "known": {"entries": 600, "mature": 300},
        "later": {"entries": 900, "mature": 900},
        "learnt": "",
        "association": True,
        "comparison": [
            compared("prior alone", 0.0, 0.0),
            compared("progressive", -0.05, 0.01),
            compared("auto_surrogate", -0.045, 0.01),
        ],
        "calibration": {
            "progressive": calibrated(),
            "auto_surrogate": {"not_estimable": f"too few items {title}"},
        },
        "showing": {
            "surface": "home",
            "slots": 13_460,
            "judged": 1_024,
            "weights": {"position": -0.41, "item shown, 7 days": -0.22, "user's taste": 0.93},
            "reliability": [
                {"predicted": 0.041, "realised": 0.043, "std_error": 0.004, "n": 512},
                {"predicted": 0.102, "realised": 0.097, "std_error": 0.006, "n": 512},
            ],
            "parts": {
                "repetition": {"gain": 0.0014, "gain_se": 0.0002, "usual": 0.0106},
                "taste": {"gain": 0.0001, "gain_se": 0.0002, "usual": 0.0106},
            },
        },
        "values": {
            "slots": 5_120,
            "slates": 1_024,
            "users": 96,
            "usual": 0.0106,
            "scores": [
                slot_score("progressive", 0.021, 0.0, 0.0),
                slot_score("ridge", 0.025, 0.004, 0.001),
            ],
        },
        "beliefs": [
            {"key": f"i{k}", "entries": 40 + k, "mean": 0.5 - k / 40, "std": 0.02, "title": title}
            for k in range(16)
        ],
    }
    return {
        "simulate": log,
        "outcomes": {
            "habit": signal(),
            "active": signal("active@c45a2484") | {"base_rate": None, "maturity": [], "mature": 0},
        },
        "reward": {"habit": reward},
        "codes": {
            "items": 60,
            "levels": 3,
            "width": 8,
            "version": "8bffcd2d",
            "reconstruction": 0.6,
            "moved": 0.2,
            "usage": [1.0, 1.0, 0.9],
            "largest_prefix": 12,
            "collisions": 0.1,
            "vectors": {"behaviour": "svd", "words": "tfidf", "words_weight": 0.5, "dim": 64},
            "purity": {
                "creator": {"found": [0.31, 0.62], "shuffled": [0.11, 0.42]},
                "tag": {"found": [0.7, 0.9], "shuffled": [0.2, 0.5]},
            },
            "shelves": [{"prefix": [1, 2], "items": 6, "titles": [title, "another"]}],
        },
        "train": {
            "policy": "generative@1",
            "scale": "tiny",
            "parameters": 77312,
            "steps": 150,
            "curve": [
                {"step": 50 * k, "loss": 6 / k, "validation": 6.1 / k, "ndcg": None}
                for k in (1, 2, 3)
            ],
        },
        "reinforce": {
            "policy": "generative@2",
            "reward": "92f22c97",
            "objectives": {"habit@ba93f33d": 1.0},
            "caution": 1.0,
            "guardrails": {},
            "alarms": [],
            "exclude": "none",
            "kl_weight": 0.3,
            "weighted_kl": 0.3,
            "rivals": {},
            "curve": steps,
            "weighted": {
                "policy": "generative@3",
                "curve": [{"step": 50 * k, "loss": 4 / k} for k in (1, 2, 3)],
            },
        },
        "evaluate": policies(),
    }


def measured(value: float, std_error: float, n: int = 2400) -> dict:
    return Estimate(value, std_error, n, float(n), "policy: per enrolled user").as_json()


def line(signal: str, arm: str, value: float, std_error: float, standing: str) -> dict:
    half = 2.64 * std_error
    effect = {
        "control": measured(10.0, 0.2),
        "treatment": measured(10.0 + value, 0.2),
        "difference": measured(value, std_error),
        "unadjusted": measured(value, 2 * std_error),
        "relative": measured(value / 10, std_error / 10),
        "level": 0.9917,
        "interval": [value - half, value + half],
        "relative_interval": [(value - half) / 10, (value + half) / 10],
        "p_value": 0.03,
        "variance_reduction": 0.75,
        "corrected_for_skewness": False,
    }
    return {
        "signal": signal,
        "arm": arm,
        "role": "success",
        "margin": None,
        "better": "higher",
        "enrolled": [1300, 1250],
        "mature": [1200, 1150],
        "matures": "2026-07-02T00:00:00+00:00",
        "standing": standing,
        "reason": "",
        "effect": effect,
    }


def verdict_on(signal: str, recommendation: str, reason: str) -> dict:
    return {
        "signal": signal,
        "agreement": "off by a factor",
        "recommendation": recommendation,
        "reason": reason,
        "users": None,
        "early": measured(0.31, 0.02),
        "late": measured(0.21, 0.03),
        "north_star": measured(0.62, 0.15),
        "gap": measured(0.1, 0.02),
        "factor": measured(0.68, 0.09),
    }


def looped(title: str = "A plain title", verdict: str = "keep running") -> dict:
    """`full` with a rival, off-policy estimates, a trial of both policies, and its audit."""
    results = full(title)
    arms, habit, active = ("reinforced", "clicks"), "habit@ba93f33d", "active@c45a2484"
    rival = {
        "policy": "generative@4",
        "objectives": {"clicks": 1.0},
        "alarms": [],
        "curve": copy.deepcopy(results["reinforce"]["curve"]),
    }
    results["reinforce"]["rivals"] = {"clicks": rival}
    rows = results["evaluate"]["ranking"]
    rows += [
        {**row, "policy": "clicks", "value": 0.0333} for row in rows if row["policy"] == "start"
    ]
    results["evaluate"]["true_value"]["policies"].append(
        {"policy": "clicks", "value": estimate(0.0222, 0.001)}
    )
    results["evaluate"]["true_value"]["differences"].append(
        pair("reinforced", "clicks", estimate(0.02, 0.01))
    )
    ways = {how: estimate(0.0145, 0.002, n_eff=150.0) for how in ("IPS", "SNIPS", "doubly robust")}
    why = f"generative@2: not estimable: n_eff = 41 of 9,000 slots {title}"
    off = [
        {
            "policy": name,
            "diagnosis": f"diagnosis of {name}\nn_eff 2,000 slots",
            "lacks": "",
            "estimates": ways,
        }
        for name in ("popular", "clicks")
    ]
    off.append(
        {
            "policy": "reinforced",
            "diagnosis": title,
            "lacks": "n_eff 41",
            "estimates": {how: {"not_estimable": why} for how in ways},
        }
    )
    results["offpolicy"] = {
        "not_estimable": None,
        "signal": habit,
        "surface": "home",
        "slots": 9000,
        "users": 300,
        "logged": estimate(0.0131, 0.001),
        "policies": off,
    }
    refused = line(habit, "clicks", 0.0, 1.0, "not estimable") | {
        "effect": None,
        "reason": f"habit: 12 of 1,250 users are mature {title}",
    }
    decided = [
        {
            "arm": "reinforced",
            "verdict": verdict,
            "reason": f"active is open {title}",
            "users": 51_000,
            "weeks": 5.2,
        },
        {
            "arm": "clicks",
            "verdict": "do not ship",
            "reason": "active deteriorates",
            "users": None,
            "weeks": None,
        },
    ]
    results["experiment"] = {
        "north_star": active,
        "north_star_sentence": "active: days on which people come back",
        "begun": "2026-02-10T00:00:00+00:00",
        "days": 56,
        "arms": [
            {"arm": "control", "policy": "popular@1"},
            *({"arm": arm, "policy": "generative@2"} for arm in arms),
        ],
        "users": 5000,
        "share": 1 / 3,
        "plan": {
            "words": f"active: to find 5% of a mean of 10: 51,000 users {title}",
            "signal": active,
            "effect": 0.05,
            "mean": 10.0,
            "std": 6.0,
            "std_adjusted": 3.0,
            "users": 51_000,
            "weeks": 9.5,
            "enrolment": [5000, 5200],
            "users_at_hand": 10_200,
            "detectable": None,
            "wait_days": 29,
            "alpha": 0.05,
            "power": 0.8,
            "share": 1 / 3,
            "treatments": 2,
            "beside": [],
            "guardrails": {},
            "variance_reduction": 0.75,
        },
        "other_lines": [],
        "words": "a table",
        "readout": {
            "experiment": "trial",
            "as_of": "2026-04-07T00:00:00+00:00",
            "alpha": 0.05,
            "power": 0.8,
            "minimum_effect": 0.05,
            "lines": [
                line(habit, "reinforced", 0.21, 0.03, "superior"),
                line(active, "reinforced", 0.62, 0.15, "open"),
                refused,
                line(active, "clicks", -0.53, 0.16, "deteriorates"),
            ],
            "checks": [
                {
                    "name": "sample ratio",
                    "fails": False,
                    "warns": False,
                    "words": f"control 1,300 {title}",
                }
            ],
            "decisions": decided,
        },
        "truth": [
            {"arm": "control", "level": estimate(10.1, 0.4), "difference": None},
            {"arm": "reinforced", "level": estimate(10.6, 0.4), "difference": estimate(0.55, 0.11)},
            {"arm": "clicks", "level": estimate(9.7, 0.4), "difference": estimate(-0.44, 0.12)},
        ],
        "daily": [
            {"arm": arm, "day": f"2026-02-{day:02}", "share": 0.3 + day / 1000}
            for day in range(10, 26)
            for arm in ("control", *arms)
        ],
    }
    verdicts = {
        "reinforced": verdict_on(habit, "reweight", f"early was off by a factor {title}"),
        "clicks": verdict_on("clicks@1", "drop", "it rose"),
    }
    results["audit"] = {
        "arms": {
            arm: {
                "experiment": "trial",
                "arm": arm,
                "north_star": active,
                "age": 7,
                "level": 0.95,
                "margin": 0.01,
                "as_of": "2026-04-07T00:00:00+00:00",
                "verdicts": [verdicts[arm]],
                "words": "a table",
            }
            for arm in sorted(arms)
        }
    }
    return results


class _Elements(HTMLParser):
    """Every start tag with its attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self._silent = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text.append(data)

    def headings(self) -> list[int]:
        return [int(tag[1]) for tag, _ in self.tags if re.fullmatch("h[1-6]", tag)]


def words_of(page: str) -> str:
    return " ".join(" ".join(_Elements(page).text).split())


TITLES = (
    "The log at a glance",
    "Signals",
    "Early rewards",
    "Semantic IDs",
    "Training curves",
    "Ranking before and after",
    "The world knows: true value of showing",
    "Not estimable, and why",
    "How to make this page again",
)


def test_every_section_is_there_in_order():
    text = re.sub(
        r"<script.*?</script>|<nav.*?</nav>|<style.*?</style>",
        "",
        render("demo", full()),
        flags=re.S,
    )
    places = [text.index(title) for title in TITLES]
    assert places == sorted(places)


def test_a_real_log_has_no_section_on_true_values():
    results = full()
    results["ingest"] = results.pop("simulate") | {"has_decisions": False}
    del results["ingest"]["exclude"]
    page = render("shop", results)
    assert "The world knows" not in page
    assert "Not a verdict on the policies" not in page
    assert "Not a verdict on the policies" in render("demo", full())


def test_nothing_is_fetched_and_only_our_own_scripts_may_run():
    page = render("demo", full())
    elements = _Elements(page)
    for tag, attributes in elements.tags:
        for name in ("src", "srcset", "data", "action", "poster"):
            assert name not in attributes, (tag, attributes)
        assert attributes.get("href", "#").startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert tag not in ("link", "iframe", "img", "object", "embed", "base", "form")
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    policy = next(
        attributes["content"]
        for tag, attributes in elements.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy


def test_hostile_strings_are_inert_in_text_and_in_chart_json():
    results = full(HOSTILE)
    results["reward"]["habit"]["comparison"].append(compared(HOSTILE, -0.01, 0.01))
    results["outcomes"]["habit"]["label"] = HOSTILE
    results["evaluate"]["ranking"].append(
        {
            "policy": HOSTILE,
            "metric": "NDCG@10",
            "value": 0.1,
            "estimate": estimate(0.1, 0.01),
        }
    )
    results["evaluate"]["not_estimable"][HOSTILE] = HOSTILE
    page = render(HOSTILE, results)
    assert "<img" not in page.replace(str(bundle()), "")
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&lt;!--" in page
    assert page.count("<script") == page.count("</script>") == 3
    assert not [tag for tag, attributes in _Elements(page).tags if "onerror" in attributes]
    data = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S)
    assert data is not None
    assert HOSTILE.split(">")[0] not in data[1]
    assert "\\u003c/script\\u003e" in data[1]


def test_json_for_a_script_element_holds_no_markup_and_no_nan():
    assert (
        inert_json({"a": "<b>&", "x": float("nan"), "y": [float("inf"), 1.5]})
        == '{"a":"\\u003cb\\u003e\\u0026","x":null,"y":[null,1.5]}'
    )


@pytest.mark.parametrize(
    "stage", ["simulate", "outcomes", "reward", "codes", "train", "reinforce", "evaluate"]
)
def test_a_missing_stage_is_said_to_be_missing(stage):
    results = full()
    del results[stage]
    page = render("demo", results)
    assert re.search("No |Nothing ", words_of(page))
    assert "undefined" not in words_of(page)
    assert "None" not in words_of(page)


def test_a_collapse_is_the_first_thing_the_page_says():
    # catches: "not distinguishable" at the head of a page whose policy shows one artist in nine
    # slots of ten
    results = full()
    for row in results["evaluate"]["ranking"]:
        if row["metric"] == "coverage@10":
            row["value"] = {"start": 0.46, "reinforced": 0.03}.get(row["policy"], 0.4)
        if row["metric"] == "NDCG@10" and row["policy"] == "reinforced":
            row["value"] = 0.0015
    shown = {"start": 4.4, "reinforced": 1.2, "reward-weighted": 4.0, "popular": 1.0}
    results["evaluate"]["ranking"] += [
        {"policy": name, "metric": "creators per slate@5", "value": value, "estimate": None}
        for name, value in shown.items()
    ]
    results["reinforce"]["alarms"] = ["coverage fell by 93%, from 0.46 to 0.03"]
    page = render("collapsed", results)
    head = page[page.index("<body>") : page.index('<dl class="facts"')]
    alarms = re.findall(r'role="alert">([^<]*)<', head)
    assert len(alarms) == 2
    assert (
        "the policy “reinforced” is far behind the start on the training moments: coverage fell "
        "by 93%, from 0.46 to 0.03." in alarms[0]
    )
    for words in (
        "coverage@10 fell by 93%",
        "NDCG@10 fell by 97%",
        "distinct creators per slate@5 fell by 73%, from 4.4 to 1.2",
    ):
        assert words in alarms[1]
    assert "popular" not in " ".join(alarms)
    assert [
        row[0] for row in table_of(page, "Ranking by policy") if row[0].startswith("creators")
    ] == ["creators per slate@5"]
    assert 'role="alert"' not in render("calm", full())


def test_a_trial_under_another_rule_of_exclusions_than_training_says_so_at_its_head():
    results = looped()
    results["simulate"]["exclude"] = "none"
    for trained, said in (("creator", 1), ("none", 0)):
        results["reinforce"]["exclude"] = trained
        page = render("trial", results)
        head = page[page.index("<body>") : page.index('<dl class="facts"')]
        words = "trained under exclude = “creator”, and the experiment showed them under exclude = “none”"
        assert head.count(words) == said


def test_an_empty_run_still_gives_a_page():
    text = words_of(render("empty", {}))
    assert "No log was read" in text
    assert "Nothing was ranked" in text


def test_missing_pieces_degrade():
    results = full()
    results["simulate"] |= {
        "retention": [],
        "activity": [],
        "kinds": {},
        "rejected": {},
        "notes": [],
    }
    results["reward"]["habit"] |= {
        "calibration": {"progressive": {"not_estimable": "too few items"}},
        "beliefs": [],
        "showing": None,
        "values": None,
    }
    results["reinforce"] |= {"curve": [], "weighted": {"policy": "x", "curve": []}}
    results["train"]["curve"] = []
    results["evaluate"] |= {
        "not_estimable": {"ranking": "no objective is entered by discovery"},
        "signal": None,
        "ranking": [],
        "differences": [],
        "true_value": None,
    }
    text = words_of(render("demo", results))
    assert "Nothing was ranked: no objective is entered by discovery" in text
    assert "Calibration is not estimable: too few items" in text
    assert "No row was set aside" in text
    assert "has no true values" in text


def test_estimates_without_an_interval_degrade():
    results = full()
    for row in results["evaluate"]["ranking"]:
        row["estimate"] = estimate(row["value"], 0.0, n=1)
    for row in results["evaluate"]["differences"]:
        row["difference"] = estimate(row["difference"]["value"], 0.0, n=1)
    text = words_of(render("demo", results))
    assert "no interval: too few users" in text


def test_results_of_another_shape_are_refused():
    with pytest.raises(DataError, match="each a mapping"):
        render("demo", {"simulate": [1, 2]})  # type: ignore[dict-item]


def test_equal_inputs_give_equal_bytes():
    first = render("demo", full())
    render("other", full("something else in between"))
    assert render("demo", copy.deepcopy(full())) == first


# -- the loop --------------------------------------------------------------------------------------


def table_of(page: str, caption: str) -> list[list[str]]:
    """Cells of the table whose caption begins with `caption`, the head first."""
    text = next(
        part
        for part in re.findall(r"<table.*?</table>", page, re.S)
        if re.search(rf"<caption>{caption}", part)
    )
    rows = re.findall(r"<tr.*?>(.*?)</tr>", text, re.S)
    return [
        [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.S)]
        for row in rows
    ]


def test_the_loop_stands_second_where_a_trial_was_run_and_nowhere_else():
    with_trial, without = render("demo", looped()), render("demo", full())
    assert re.findall(r'<section id="(\w+)"', with_trial)[:3] == ["log", "loop", "signals"]
    assert "loop" not in re.findall(r'<section id="(\w+)"', without)
    assert "offpolicy" not in re.findall(r'<section id="(\w+)"', without)
    assert "<dt>incumbent</dt>" in with_trial
    assert "<dt>incumbent</dt>" not in without


def test_every_policy_of_the_trial_has_a_row_with_all_its_figures():
    head, incumbent, ours, rival = table_of(render("demo", looped()), "What was tried")
    assert head == list(experiment.HEAD)
    assert incumbent == [
        "popular (incumbent)",
        "10.10 (9.70 to 10.50)",
        "reference",
        "0.0131 as logged (0.0121 to 0.0141)",
        "reference",
        "runs now",
        "–",
    ]
    assert ours[:3] == ["reinforced on habit", "10.60 (10.20 to 11.00)", "+0.55 (0.44 to 0.66)"]
    assert ours[3:] == [
        "not estimable (n_eff 41)",
        "+0.62 (0.33 to 0.91)",
        "keep running",
        "habit: reweight",
    ]
    assert rival[:3] == ["reinforced on clicks", "9.70 (9.30 to 10.10)", "−0.44 (−0.56 to −0.32)"]
    assert rival[3:] == [
        "0.0145 (0.0125 to 0.0165)",
        "−0.53 (−0.84 to −0.22)",
        "do not ship",
        "clicks: drop",
    ]


def test_the_table_says_that_its_columns_answer_two_questions():
    text = words_of(render("demo", looped()))
    assert "Off-policy (estimand one_step): habit per slot" in text
    assert "Experiment and truth (estimand policy): active per user" in text


def test_the_loop_says_in_words_what_was_decided_what_is_true_and_what_it_takes():
    text = words_of(render("demo", looped()))
    assert (
        "An experiment of 3,800 enrolled users over 56 days says: keep running reinforced on habit and "
        "do not ship reinforced on clicks." in text
    )
    assert "To settle it: about 51,000 users in both arms, 6 more weeks." in text
    assert (
        "Reinforced on habit is truly better than the incumbent in the world that made the data: "
        "active per user over 28 days +0.55" in text
    )
    assert "Reinforced on clicks is truly worse than the incumbent" in text
    assert "the experiment's +0.62 (0.33 to 0.91) agrees with it, within the errors of both" in text
    assert (
        "at day 7 the early reward of habit said +0.310 per user, +0.210 matured (off by a "
        "factor). The audit says: reweight." in text
    )
    assert (
        "The plan made before the experiment active: to find 5% of a mean of 10: 51,000 users"
        in text
    )


def test_a_trial_that_misses_the_truth_is_said_to_miss_it():
    results = looped()
    results["experiment"]["truth"][1]["difference"] = estimate(-0.5, 0.1)
    text = words_of(render("demo", results))
    assert "Reinforced on habit is truly worse than the incumbent" in text
    assert "+0.62 (0.33 to 0.91) does not agree with it" in text


def test_shipping_while_the_north_star_is_open_says_so():
    results = looped(verdict="ship")
    results["experiment"]["readout"]["lines"][1] = line(
        "active@c45a2484", "reinforced", 0.2, 0.15, "open"
    )
    assert (
        f"The north star itself is {ZERO}: active +0.20 (−0.09 to 0.49)."
        in experiment.decision_words(loop_of(results))[0]
    )
    assert "north star itself" not in experiment.decision_words(loop_of(looped(verdict="ship")))[0]


def test_the_read_out_and_the_audit_show_their_intervals_at_their_own_level():
    page = render("demo", looped())
    rows = table_of(
        page,
        "Read-out of reinforced on habit against the incumbent, per enrolled user; intervals at "
        "99.2%",
    )
    assert (
        rows[2][3] == "+0.62 (0.22 to 1.02)"
    )  # at the level that decides, wider than the 95% of the table above
    assert rows[2][7:] == ["2,350 of 2,550", "open"]
    assert table_of(page, "Read-out of reinforced on clicks")[1] == [
        "habit",
        *["–"] * 6,
        "2,350 of 2,550",
        "not estimable",
    ]
    audit = table_of(page, "Differences from the incumbent per enrolled user, with 95% intervals")
    assert audit[1] == [
        "reinforced on habit",
        "habit",
        "+0.310 (0.271 to 0.349)",
        "+0.210 (0.151 to 0.269)",
        "+0.100 (0.061 to 0.139)",
        "+0.62 (0.33 to 0.91)",
        "off by a factor",
        "reweight",
    ]
    assert [row[0] for row in audit[1:]] == [
        "reinforced on habit",
        "reinforced on clicks",
    ]  # in the order of the trial


def test_a_failed_check_is_said_before_the_checks():
    results = looped()
    results["experiment"]["readout"]["checks"][0]["fails"] = True
    assert (
        '<p class="note caution">The experiment cannot be trusted. sample ratio: control 1,300'
        in render("demo", results)
    )


def test_refusals_of_the_log_and_of_the_trial_stand_with_their_reasons():
    rows = dict(table_of(render("demo", looped()), "What was not answered")[1:])
    assert "n_eff = 41 of 9,000 slots" in rows["off-policy value of reinforced on habit"]
    assert "12 of 1,250 users are mature" in rows["effect of clicks on habit"]
    refused = {
        "not_estimable": "this log has no propensities",
        "signal": None,
        "surface": None,
        "slots": 0,
        "users": 0,
        "logged": None,
        "policies": [],
    }
    results = full() | {"offpolicy": refused}
    assert (
        dict(table_of(render("shop", results), "What was not answered")[1:])["off-policy value"]
        == "this log has no propensities"
    )


def test_off_policy_values_stand_beside_the_slots_as_logged():
    page = render("demo", looped())
    rows = table_of(
        page, "Value per slot with 95% interval over users; the slots as logged: 0.0131"
    )
    assert rows[1] == ["popular", *["0.0145 (0.0125 to 0.0165)"] * 3, "150"]
    assert rows[3] == ["reinforced on habit", *["not estimable"] * 3, "–"]
    assert "as logged 0.0131" in page
    assert (
        "The log can value 2 of 3 policies; not reinforced on habit, for reasons given below."
        in words_of(page)
    )
    assert "<pre>diagnosis of popular\nn_eff 2,000 slots" in page
    above = looped()
    above["offpolicy"]["policies"][1]["estimates"]["doubly robust"] = estimate(0.03, 0.002)
    assert (
        "Reinforced on clicks: 0.0300 habit per slot, doubly robust (95% interval 0.0280 to "
        "0.0320), above the 0.0131" in words_of(render("demo", above))
    )


def test_rivals_stand_in_every_comparison_in_a_colour_of_their_own():
    page = render("demo", looped())
    assert "reinforced on clicks" in table_of(page, "Ranking by policy")[0]
    assert "reinforced on clicks" in [row[0] for row in table_of(page, "True value per slot")]
    assert ["reinforced on clicks", "generative@4"] in table_of(page, "What was trained")
    assert "Reinforced on clicks: early reward per slot" in page
    assert "Reinforcement is above reinforcement on clicks in true value per slot" in words_of(page)
    results = looped()
    results["reinforce"]["rivals"] = {
        f"rival {k}": {"policy": "", "objectives": {"clicks": 1.0}, "curve": [], "alarms": []}
        for k in range(12)
    }
    names = policy_names(RunResults.of_json(results))
    colours = names.colours
    rivals = [f"rival {k}" for k in range(12)]
    assert len({colours[name] for name in (*POLICY_COLOURS, *rivals)}) == len(POLICY_COLOURS) + 12
    assert len({names[name] for name in rivals}) == 12
    assert colours == policy_names(RunResults.of_json(copy.deepcopy(results))).colours


def test_the_page_of_a_trial_escapes_hostile_names_and_is_the_same_twice():
    results = looped(HOSTILE)
    results["experiment"]["arms"].append({"arm": HOSTILE, "policy": HOSTILE})
    results["experiment"]["truth"].append(
        {"arm": HOSTILE, "level": estimate(1, 1), "difference": estimate(1, 1)}
    )
    results["experiment"]["daily"] += [
        {"arm": HOSTILE, "day": f"2026-02-{day}", "share": 0.3} for day in range(10, 26)
    ]
    results["reinforce"]["rivals"][HOSTILE] = {
        "policy": HOSTILE,
        "objectives": {HOSTILE: 1.0},
        "alarms": [],
        "curve": results["reinforce"]["curve"],
    }
    page = render("demo", results)
    assert "<img" not in page.replace(str(bundle()), "")
    assert page.count("<script") == page.count("</script>") == 3
    assert render("demo", copy.deepcopy(results)) == page


@pytest.mark.parametrize("stage", ["outcomes", "reinforce", "evaluate", "offpolicy", "audit"])
def test_a_trial_without_one_of_its_neighbours_still_gives_a_page(stage):
    results = looped()
    del results[stage]
    text = words_of(render("demo", results))
    assert "What was tried" in text
    assert "None" not in text


# -- sentences -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.003, 0.021, ZERO),
        (0.0, 0.02, ZERO),
        (-0.02, 0.0, ZERO),
        (0.0, 0.0, ZERO),
        (1e-6, 0.02, "higher"),
        (-0.02, -1e-6, "lower"),
        (None, None, "no interval"),
    ],
)
def test_not_distinguishable_from_zero_exactly_when_the_interval_includes_zero(low, high, said):
    row = Bounded(0.0 if low is None else (low + high) / 2, low, high)
    assert verdict(row) == said
    assert (ZERO in difference(row)) == (said == ZERO)
    assert (ZERO in change(row, ("reinforced", "start"), "NDCG@10", (0.06, 0.05))) == (said == ZERO)


def test_a_change_reads_the_same_whether_won_or_lost():
    won = Bounded(0.009, 0.003, 0.015)
    lost = Bounded(-0.009, -0.015, -0.003)
    open_ = Bounded(0.009, -0.003, 0.021)
    pair, metric = ("reinforced", "start"), "habit NDCG@10"
    assert change(won, pair, metric, (0.061, 0.052)) == (
        "Reinforcement raised habit NDCG@10: from 0.0520 to 0.0610 (difference +0.0090, 95% "
        "interval 0.0030 to 0.0150)."
    )
    assert change(lost, pair, metric, (0.043, 0.052)).startswith(
        "Reinforcement lowered habit NDCG@10: from 0.0520 to 0.0430"
    )
    assert change(open_, pair, metric, (0.061, 0.052)) == (
        "Reinforcement did not measurably change habit NDCG@10: from 0.052 to 0.061 "
        "(difference +0.009, 95% interval −0.003 to 0.021: not distinguishable from zero)."
    )
    beside = change(lost, ("reinforced", "reward-weighted"), metric, (0.043, 0.052))
    assert beside.startswith(
        "Reinforcement is below reward-weighted training in habit NDCG@10: 0.0430 against 0.0520"
    )


@pytest.mark.parametrize(
    ("gain", "told"),
    [
        (0.02, "is above reward-weighted"),
        (-0.02, "is below reward-weighted"),
        (0.001, "is not told apart from reward-weighted"),
    ],
)
def test_a_loss_to_reward_weighted_training_is_said_where_a_win_would_be(gain, told):
    results = full()
    results["evaluate"] = policies(gain, 0.01)
    page = render("demo", results)
    answers = re.findall(r'<div class="answer"><p>(.*?)</p>', page)
    assert (
        sum(told in answer for answer in answers) == 2
    )  # the first sentence of the ranking, and of the true values


def test_a_bound_near_zero_is_not_rounded_to_it():
    assert (
        difference(Bounded(0.0104, 0.0004, 0.0204))
        == "difference +0.0104, 95% interval 0.0004 to 0.0204"
    )


def test_numbers_and_intervals():
    assert with_interval(Bounded(0.3141, 0.274, 0.3542)) == "0.314 (0.274 to 0.354)"
    assert with_interval(Bounded(0.0, 0.0, 0.0)) == "0"
    assert with_interval(Bounded(0.25)) == "0.250"
    assert (decimal(77312), decimal(float("nan")), decimal(-0.00001, 2), decimal(1e-12)) == (
        "77,312",
        "n/a",
        "0.00",
        "0.00000000",
    )


def score(model: str, difference: float, error: float, mae: float = 0.05) -> ModelScore:
    return from_json(ModelScore, compared(model, difference, error, mae), "test")


def test_no_model_is_set_in_bold_unless_its_interval_excludes_the_next():
    prior = score("prior alone", 0.0, 0.0)
    chosen = score("progressive", -0.05, 0.01)
    assert clear_best([prior, chosen, score("auto_surrogate", -0.045, 0.01)]) is None
    other = score("auto_surrogate", -0.2, 0.01)
    assert clear_best([prior, chosen, other]) == other
    assert 'class="strong"' not in render("demo", full())


def test_a_reward_that_loses_is_said_to_lose():
    reward = full()["reward"]["habit"] | {
        "comparison": [
            compared("prior alone", 0.0, 0.0, mae=0.04),
            compared("progressive", 0.05, 0.01, mae=0.05),
        ],
    }
    figures = from_json(EarlyRewardFigures, reward, "test")
    words = " ".join(comparison_words(figures, "log loss"))
    assert "predicts later outcomes worse than the prior alone" in words
    assert "not the chosen one's" in words
    assert "no nearer than one number for all" in words


def test_coverage_is_judged_with_its_own_interval():
    assert "too narrow" in coverage_words("progressive", 0.95, 0.8, 100)
    assert "consistent with 95%" in coverage_words("progressive", 0.95, 0.93, 100)
    assert "wider than they need" in coverage_words("progressive", 0.5, 0.8, 100)
    assert wilson(0.0, 0) == (0.0, 1.0)


def test_the_day_a_signal_reaches_a_share_of_its_value():
    curve = [MaturityDay(1, 0.0), MaturityDay(2, 0.5), MaturityDay(3, 1.0)]
    assert reached(curve, 0.5) == curve[1]
    assert reached(curve, 0.9) == curve[2]
    assert reached([], 0.5) is None


# -- the page as a browser sees it -----------------------------------------------------------------


def test_headings_come_in_order_and_tables_name_their_rows_and_columns():
    elements = _Elements(render("demo", full()))
    levels = elements.headings()
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(
        attributes.get("scope") in ("row", "col")
        for tag, attributes in elements.tags
        if tag == "th"
    )
    pictures = [attributes for _, attributes in elements.tags if "data-chart" in attributes]
    assert len(pictures) >= 15
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)


def test_policies_keep_their_colours():
    chart = charts.dots(
        [
            {"name": name, "text": "1", "value": 1.0, "low": 0.9, "high": 1.1}
            for name in POLICY_COLOURS
        ],
        POLICY_COLOURS,
        "t",
        "a",
    )
    assert all(colour in str(chart.spec) for colour in POLICY_COLOURS.values())


def test_every_text_of_a_chart_of_differences_says_how_and_how_much() -> None:
    # catches: a label that names the policy again instead of its difference
    row = {"name": "a", "label": "arm a", "value": 0.4, "low": 0.1, "high": 0.7, "text": "+0.40"}
    rows = [row | {"how": "experiment"}, row | {"how": "true", "text": "+0.60"}]
    spec = charts.grouped(rows, {}, "title", "axis", reference=(0.0, "as logged")).spec
    texts = [
        [values[layer["encoding"]["text"]["field"]] for values in layer["data"]["values"]]
        for layer in spec["layer"]
        if layer["mark"]["type"] == "text"
    ]
    words = ["experiment +0.40", "true +0.60"]
    assert texts == [words, words, ["as logged"]]  # left, right, and the dashed line's


def _open(page: str, folder: Path) -> tuple[str, set[str]]:
    """The page's DOM after its scripts ran, and what the page itself (not the browser) asked the
    network for."""
    assert CHROMIUM is not None
    folder.mkdir()
    (folder / "page.html").write_text(page, encoding="utf-8")
    flags = (
        "headless no-sandbox disable-gpu disable-quic no-first-run "
        "disable-background-networking disable-component-update disable-sync"
    )
    done = subprocess.run(
        [
            CHROMIUM,
            *(f"--{flag}" for flag in flags.split()),
            f"--user-data-dir={folder / 'profile'}",
            f"--log-net-log={folder / 'net.json'}",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--window-size=1200,3000",
            "--virtual-time-budget=10000",
            "--dump-dom",
            (folder / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    events = [
        event.get("params", {}) for event in json.loads((folder / "net.json").read_text())["events"]
    ]
    asked = {
        event["url"]
        for event in events
        if "url" in event and event.get("initiator", "not an origin") != "not an origin"
    }
    return done.stdout, {url for url in asked if not url.startswith(("file:", "data:"))}


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_chromium_draws_every_chart_and_the_page_asks_the_network_for_nothing(tmp_path):
    _, control = _open("<img src='http://asked.invalid/x.png'>", tmp_path / "control")
    assert control == {"http://asked.invalid/x.png"}  # the watch would have seen it
    dom, asked = _open(render(HOSTILE, looped(HOSTILE)), tmp_path / "report")
    assert asked == set()
    dom = re.sub(r"<script>.*?</script>", "", dom, flags=re.S)
    places = re.findall(r'<div class="chart[^"]*"[^>]*data-chart="\d+"[^>]*>', dom)
    assert len(places) >= 15
    assert all('data-drawn="yes"' in place for place in places), [
        place for place in places if "drawn" not in place
    ]
    drawings = re.findall(r"<svg\b.*?</svg>", dom, re.S)
    assert len(drawings) == len(places)
    assert all(
        re.search(r"mark-(line|symbol|rect|rule|area)[^>]*>.*?<(path|line|rect)\b", drawing, re.S)
        for drawing in drawings
    )
    assert not re.search(r"\bNaN\b", "".join(drawings))
    assert "<img" not in dom
