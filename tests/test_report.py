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

from longplay.errors import DataError
from longplay.report import bundle, charts, inert_json, render
from longplay.report.about_rewards import clear_best, comparison_words
from longplay.report.words import ZERO, change, coverage_words, difference, number, plus_minus, reached, verdict, wilson

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "</script><img src=x onerror=alert(1)><!--"


def estimate(value: float, half: float, n: int = 400) -> dict:
    return {"value": value, "low": value - half, "high": value + half, "n": n}


def signal(label: str = "habit@ba93f33d") -> dict:
    name = label.split("@")[0]
    curve = [{"day": day, "value": 0.2 * day / 28} for day in range(1, 29)]
    known = {"as_of": "2026-03-01T00:00:00+00:00", "entries": 600, "mature": 300, "base_rate": estimate(0.22, 0.02)}
    return {
        "label": label, "sentence": f"{name}: the share that comes back", "unit": "user x item", "binary": True, "days": 28,
        "toml": f"[signals.{name}]\nwindow = [1, 28]\n", "as_of": "2026-04-09T00:00:00+00:00", "entries": 1000, "mature": 750,
        "truncated": 0, "base_rate": estimate(0.2, 0.01), "maturity": curve, "at_training": known,
    }  # fmt: skip


def compared(model: str, difference: float, error: float, mae: float = 0.05) -> dict:
    return {
        "model": model, "entries": 900, "loss": 0.4 + difference, "loss_se": 0.01, "rmse": 0.3, "concordance": 0.7,
        "difference": difference, "difference_se": error, "item_mae": mae, "items": 40,
    }  # fmt: skip


def calibrated(share: float = 0.8) -> dict:
    bins = [{"predicted": k / 10, "realised": k / 10 + 0.01, "std_error": 0.01, "n": 50} for k in range(10)]
    return {
        "coverage": {"0.5": 0.5, "0.95": share}, "groups": 100, "min_entries": 50, "pit": [90, 110] * 5, "reliability": bins,
        "mae": 0.03, "prior_mae": 0.1, "sharpness": 0.02, "prior_sharpness": 0.1,
    }  # fmt: skip


def policies(gain: float = 0.02, half: float = 0.01) -> dict:
    names = {"popular": 0.04, "start": 0.05, "reward-weighted": 0.055, "reinforced": 0.05 + gain}
    metrics = [f"{name}@{k}" for name in ("HR", "NDCG", "habit NDCG") for k in (1, 5, 10, 50)]
    rows = [{"policy": name, "metric": metric, **estimate(value, 0.01)} for name, value in names.items() for metric in metrics]
    rows += [{"policy": name, "metric": metric, "value": 0.3} for name in names for metric in ("coverage@10", "cold-start share@10")]
    pairs = [("start", "popular"), ("reinforced", "start"), ("reward-weighted", "start"), ("reinforced", "reward-weighted")]
    gaps = [{"policy": a, "than": b, "metric": metric, **estimate(gain, half)} for a, b in pairs for metric in ("NDCG@10", "habit NDCG@10")]
    true = {
        "users": 400,
        "policies": [{"policy": name, **estimate(value, 0.01)} for name, value in names.items()],
        "differences": [{"policy": a, "than": b, **estimate(gain, half)} for a, b in pairs],
    }
    return {
        "not_estimable": {"experiment": "no trial was run on this log"}, "signal": "habit@ba93f33d", "visits": 500, "users": 400,
        "discoveries": 800, "habits": 90, "new_to_catalogue": 0.1, "ranking": rows, "differences": gaps, "true_value": true,
    }  # fmt: skip


def full(title: str = "A plain title") -> dict:
    """A small simulated run with every stage."""
    steps = [{"step": k, "reward": 0.02 + k / 1e3, "kl": k / 50, "kl_p95": k / 30, "zero_advantage": 0.1} for k in range(1, 31)]
    log = {
        "events": 5000, "users": 300, "items": 60, "decisions": 900, "quarantined": 7, "first": "2026-01-01 06:00:00+00:00",
        "last": "2026-02-09 20:00:00+00:00", "watermark": "2026-02-10T00:00:00+00:00", "kinds": {"play": 4000, title: 1000},
        "origins": {"organic": 5000}, "activity": [{"day": f"2026-01-{k:02}", "users": 50 + k, "events": 200} for k in range(1, 21)],
        "retention": [{"week": k, "share": 1 / (k + 1), "users": 100} for k in range(6)], "rejected": {title: 7}, "notes": [title, ""],
        "source": {"format": "simulated world", "name": title, "rows": 5007}, "has_origin": True, "has_decisions": True,
    }  # fmt: skip
    reward = {
        "label": "habit@ba93f33d", "chosen": "progressive", "age": 7, "known": {"entries": 600, "mature": 300},
        "later": {"entries": 900, "mature": 900},
        "association": True,
        "comparison": [compared("prior alone", 0.0, 0.0), compared("progressive", -0.05, 0.01), compared("auto_surrogate", -0.045, 0.01)],
        "calibration": {"progressive": calibrated(), "auto_surrogate": {"not_estimable": f"too few items {title}"}},
        "beliefs": [{"key": f"i{k}", "entries": 40 + k, "mean": 0.5 - k / 40, "std": 0.02, "title": title} for k in range(16)],
    }  # fmt: skip
    return {
        "simulate": log,
        "outcomes": {"habit": signal(), "active": signal("active@c45a2484") | {"base_rate": None, "maturity": [], "mature": 0}},
        "reward": {"habit": reward},
        "codes": {
            "items": 60, "levels": 3, "width": 8, "version": "8bffcd2d", "reconstruction": 0.6, "moved": 0.2, "usage": [1.0, 1.0, 0.9],
            "largest_prefix": 12,
            "shelves": [{"prefix": [1, 2], "items": 6, "titles": [title, "another"]}],
        },
        "train": {"policy": "generative@1", "scale": "tiny", "parameters": 77312,
                  "curve": [{"step": 50 * k, "loss": 6 / k, "held_out": 6.1 / k} for k in (1, 2, 3)]},
        "reinforce": {
            "policy": "generative@2", "reward": "92f22c97", "objectives": {"habit@ba93f33d": 1.0}, "caution": 1.0, "kl_weight": 0.3, "curve": steps,
            "weighted": {"policy": "generative@3", "curve": [{"step": 50 * k, "loss": 4 / k} for k in (1, 2, 3)]},
        },
        "evaluate": policies(),
    }  # fmt: skip


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
    "The log at a glance", "Signals", "Early rewards", "Semantic IDs", "Training curves", "Ranking before and after",
    "The world knows: true value of showing", "Not estimable, and why", "How to make this page again",
)  # fmt: skip


def test_every_section_is_there_in_order():
    text = re.sub(r"<script.*?</script>|<nav.*?</nav>|<style.*?</style>", "", render("demo", full()), flags=re.S)
    places = [text.index(title) for title in TITLES]
    assert places == sorted(places)


def test_a_real_log_has_no_section_on_true_values():
    results = full()
    results["ingest"] = results.pop("simulate") | {"has_decisions": False}
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
    policy = next(attributes["content"] for tag, attributes in elements.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy


def test_hostile_strings_are_inert_in_text_and_in_chart_json():
    results = full(HOSTILE)
    results["reward"]["habit"]["comparison"].append(compared(HOSTILE, -0.01, 0.01))
    results["outcomes"]["habit"]["label"] = HOSTILE
    results["evaluate"]["ranking"].append({"policy": HOSTILE, "metric": "NDCG@10", **estimate(0.1, 0.01)})
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
    assert inert_json({"a": "<b>&", "x": float("nan"), "y": [float("inf"), 1.5]}) == '{"a":"\\u003cb\\u003e\\u0026","x":null,"y":[null,1.5]}'


@pytest.mark.parametrize("stage", ["simulate", "outcomes", "reward", "codes", "train", "reinforce", "evaluate"])
def test_a_missing_stage_is_said_to_be_missing(stage):
    results = full()
    del results[stage]
    page = render("demo", results)
    assert re.search("No |Nothing ", words_of(page))
    assert "undefined" not in words_of(page)
    assert "None" not in words_of(page)


def test_an_empty_run_still_gives_a_page():
    text = words_of(render("empty", {}))
    assert "No log was read" in text
    assert "Nothing was ranked" in text


def test_missing_pieces_degrade():
    results = full()
    results["simulate"] |= {"retention": [], "activity": [], "kinds": {}, "rejected": {}, "notes": []}
    results["reward"]["habit"] |= {"calibration": {"progressive": {"not_estimable": "too few items"}}, "beliefs": []}
    results["reinforce"] |= {"curve": [], "weighted": {"policy": "x", "curve": []}}
    results["train"]["curve"] = []
    results["evaluate"] = {"not_estimable": {"ranking": "no objective is entered by discovery"}}
    text = words_of(render("demo", results))
    assert "Nothing was ranked: no objective is entered by discovery" in text
    assert "Calibration is not estimable: too few items" in text
    assert "No row was set aside" in text
    assert "has no true values" in text


def _nested(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from _nested(inner, (*path, key))


def test_any_figure_may_be_missing():
    paths = [path for path in _nested(full()) if len(path) > 1]
    stages = [[path for path in paths if path[0] == stage] for stage in full()]
    for place in range(max(len(stage) for stage in stages)):  # one figure of every stage at a time
        results = full()
        for stage in stages:
            *above, last = stage[place % len(stage)]
            inner = results
            for key in above:
                inner = inner[key]
            inner[last] = None
        render("demo", results)


def test_estimates_without_an_interval_degrade():
    results = full()
    for row in results["evaluate"]["ranking"] + results["evaluate"]["differences"]:
        row["low"] = row["high"] = None
    text = words_of(render("demo", results))
    assert "no interval: too few users" in text


def test_results_of_another_shape_are_refused():
    with pytest.raises(DataError, match="each a mapping"):
        render("demo", {"simulate": [1, 2]})  # type: ignore[dict-item]


def test_equal_inputs_give_equal_bytes():
    first = render("demo", full())
    render("other", full("something else in between"))
    assert render("demo", copy.deepcopy(full())) == first


# -- sentences -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.003, 0.021, ZERO), (0.0, 0.02, ZERO), (-0.02, 0.0, ZERO), (0.0, 0.0, ZERO),
     (1e-6, 0.02, "higher"), (-0.02, -1e-6, "lower"), (None, None, "no interval")],
)  # fmt: skip
def test_not_distinguishable_from_zero_exactly_when_the_interval_includes_zero(low, high, said):
    row = {"policy": "reinforced", "than": "start", "value": 0.0 if low is None else (low + high) / 2, "low": low, "high": high}
    assert verdict(row) == said
    assert (ZERO in difference(row)) == (said == ZERO)
    assert (ZERO in change(row, "NDCG@10", 0.06, 0.05)) == (said == ZERO)


def test_a_change_reads_the_same_whether_won_or_lost():
    won = {"policy": "reinforced", "than": "start", "value": 0.009, "low": 0.003, "high": 0.015}
    lost = won | {"value": -0.009, "low": -0.015, "high": -0.003}
    open_ = won | {"low": -0.003, "high": 0.021}
    assert change(won, "habit NDCG@10", 0.061, 0.052) == (
        "Reinforcement raised habit NDCG@10: from 0.0520 to 0.0610 (difference +0.0090, 95% interval 0.0030 to 0.0150)."
    )
    assert change(lost, "habit NDCG@10", 0.043, 0.052).startswith("Reinforcement lowered habit NDCG@10: from 0.0520 to 0.0430")
    assert change(open_, "habit NDCG@10", 0.061, 0.052) == (
        "Reinforcement did not measurably change habit NDCG@10: from 0.052 to 0.061 "
        "(difference +0.009, 95% interval −0.003 to 0.021: not distinguishable from zero)."
    )
    beside = change(lost | {"than": "reward-weighted"}, "habit NDCG@10", 0.043, 0.052)
    assert beside.startswith("Reinforcement is below reward-weighted training in habit NDCG@10: 0.0430 against 0.0520")


@pytest.mark.parametrize(
    ("gain", "told"), [(0.02, "is above reward-weighted"), (-0.02, "is below reward-weighted"), (0.001, "is not told apart from reward-weighted")]
)
def test_a_loss_to_reward_weighted_training_is_said_where_a_win_would_be(gain, told):
    results = full()
    results["evaluate"] = policies(gain, 0.01)
    page = render("demo", results)
    answers = re.findall(r'<div class="answer"><p>(.*?)</p>', page)
    assert sum(told in answer for answer in answers) == 2  # the first sentence of the ranking, and of the true values


def test_a_bound_near_zero_is_not_rounded_to_it():
    assert difference({"value": 0.0104, "low": 0.0004, "high": 0.0204}) == "difference +0.0104, 95% interval 0.0004 to 0.0204"


def test_numbers_and_half_widths():
    assert plus_minus({"value": 0.3141, "low": 0.274, "high": 0.3542}) == "0.314 ± 0.040"
    assert plus_minus({"value": 0.0, "low": 0.0, "high": 0.0}) == "0"
    assert plus_minus({"value": 0.25}) == "0.250"
    assert (number(77312), number(float("nan")), number(-0.00001, 2), number(1e-12)) == ("77,312", "n/a", "0.00", "0.00000000")


def test_no_model_is_set_in_bold_unless_its_interval_excludes_the_next():
    rows = [compared("prior alone", 0.0, 0.0), compared("progressive", -0.05, 0.01), compared("auto_surrogate", -0.045, 0.01)]
    assert clear_best(rows) is None
    assert clear_best([*rows[:2], compared("auto_surrogate", -0.2, 0.01)]) == compared("auto_surrogate", -0.2, 0.01)
    assert 'class="strong"' not in render("demo", full())


def test_a_reward_that_loses_is_said_to_lose():
    one = {
        "chosen": "progressive",
        "age": 7,
        "comparison": [compared("prior alone", 0.0, 0.0, mae=0.04), compared("progressive", 0.05, 0.01, mae=0.05)],
    }
    words = " ".join(comparison_words(one, binary=True))
    assert "predicts later outcomes worse than the prior alone" in words
    assert "not the chosen one's" in words
    assert "no nearer than one number for all" in words


def test_coverage_is_judged_with_its_own_interval():
    assert "too narrow" in coverage_words("progressive", 0.95, 0.8, 100)
    assert "consistent with 95%" in coverage_words("progressive", 0.95, 0.93, 100)
    assert "wider than they need" in coverage_words("progressive", 0.5, 0.8, 100)
    assert wilson(0.0, 0) == (0.0, 1.0)


def test_the_day_a_signal_reaches_a_share_of_its_value():
    curve = [{"day": 1, "value": 0.0}, {"day": 2, "value": 0.5}, {"day": 3, "value": 1.0}]
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
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in elements.tags if tag == "th")
    pictures = [attributes for _, attributes in elements.tags if "data-chart" in attributes]
    assert len(pictures) >= 15
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)


def test_policies_keep_their_colours():
    chart = charts.dots([{"name": name, "text": "1", **estimate(1.0, 0.1)} for name in charts.POLICY_COLOURS], charts.POLICY_COLOURS, "t", "a")
    assert all(colour in str(chart.spec) for colour in charts.POLICY_COLOURS.values())


def _open(page: str, folder: Path) -> tuple[str, set[str]]:
    """The page's DOM after its scripts ran, and what the page itself (not the browser) asked the network for."""
    assert CHROMIUM is not None
    folder.mkdir()
    (folder / "page.html").write_text(page, encoding="utf-8")
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync"
    done = subprocess.run(
        [
            CHROMIUM, *(f"--{flag}" for flag in flags.split()), f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'net.json'}",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1200,3000", "--virtual-time-budget=10000", "--dump-dom",
            (folder / "page.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    events = [event.get("params", {}) for event in json.loads((folder / "net.json").read_text())["events"]]
    asked = {event["url"] for event in events if "url" in event and event.get("initiator", "not an origin") != "not an origin"}
    return done.stdout, {url for url in asked if not url.startswith(("file:", "data:"))}


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_chromium_draws_every_chart_and_the_page_asks_the_network_for_nothing(tmp_path):
    _, control = _open("<img src='http://asked.invalid/x.png'>", tmp_path / "control")
    assert control == {"http://asked.invalid/x.png"}  # the watch would have seen it
    dom, asked = _open(render(HOSTILE, full(HOSTILE)), tmp_path / "report")
    assert asked == set()
    dom = re.sub(r"<script>.*?</script>", "", dom, flags=re.S)
    places = re.findall(r'<div class="chart[^"]*"[^>]*data-chart="\d+"[^>]*>', dom)
    assert len(places) >= 15
    assert all('data-drawn="yes"' in place for place in places), [place for place in places if "drawn" not in place]
    drawings = re.findall(r"<svg\b.*?</svg>", dom, re.S)
    assert len(drawings) == len(places)
    assert all(re.search(r"mark-(line|symbol|rect|rule|area)[^>]*>.*?<(path|line|rect)\b", drawing, re.S) for drawing in drawings)
    assert not re.search(r"\bNaN\b", "".join(drawings))
    assert "<img" not in dom
