"""The head of the report is the verdict, and all else is folded; no column is cut at any width."""

from __future__ import annotations

import html
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_report import (
    CHROMIUM,
    HOSTILE,
    calibrated,
    compared,
    estimate,
    full,
    line,
    looped,
    render,
    table_of,
    verdict_on,
    words_of,
)

from longplay.report import bundle
from longplay.report.headline import MOST_ARMS, MOST_WARNINGS
from longplay.report.phrases import LEAST_ITEMS

SCREEN = 900  # pixels high, of a window 1280 wide
NEEDS_CHROMIUM = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)


class _Unfolded(HTMLParser):
    """Text and tags of the body that stand outside every `details`; the last summary's too."""

    VOID = frozenset({"meta", "br", "hr", "img", "input", "link"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.summaries: list[str] = []
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if "details" not in self._open and "body" in self._open:
            self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "summary" in self._open:
            self.summaries.append(data)
        hidden = {"details", "script", "style", "head", "noscript"} & set(self._open)
        if not hidden and data.strip():
            self.text.append(" ".join(data.split()))


def head_of(page: str) -> _Unfolded:
    return _Unfolded(page.replace(str(bundle()), ""))


def sentences_of(page: str) -> list[str]:
    part = re.search(r'<div class="verdict">(.*?)<p class="aside">', page, re.S)
    assert part is not None
    return [
        html.unescape(re.sub("<.*?>", "", text)) for text in re.findall(r"<p>(.*?)</p>", part[1])
    ]


def with_unit(results: dict) -> dict:
    """The same run with a north star whose declaration is at hand: days active in 28."""
    results["outcomes"]["active"]["toml"] = (
        '[signals.active]\nentry = { kind = "enrolment" }\n'
        'measure = { kind = "active_days" }\nwindow = [1, 28]\n'
    )
    return results


def failed(results: dict) -> dict:
    results["experiment"]["readout"]["checks"][0]["fails"] = True
    return results


def test_each_arm_has_one_sentence_with_unit_interval_lift_and_audit():
    # catches: a verdict without its size, a size without its unit, a lift of another arm
    page = render("demo", with_unit(looped(verdict="ship")))
    assert sentences_of(page) == [
        "Ship reinforced on habit: +0.62 active days in 28 per user (0.33 to 0.91), +6.2%; audit "
        "of habit: reweight.",
        "Do not ship reinforced on clicks: −0.53 active days in 28 per user (−0.84 to −0.22), "
        "−5.3%; audit of clicks: drop.",
    ]


def test_without_its_declaration_the_north_star_is_counted_by_its_name():
    assert sentences_of(render("demo", looped()))[0].startswith(
        "Keep running reinforced on habit: +0.62 active per user over 28 days (0.33 to 0.91), +6.2%"
    )


def test_a_verdict_says_where_its_difference_is_open_or_not_estimable():
    results = looped()
    results["experiment"]["readout"]["lines"] = [
        row | {"effect": None, "standing": "not estimable", "reason": "too few"}
        if row["arm"] == "clicks"
        else line(row["signal"], "reinforced", 0.2, 0.15, "open")
        for row in results["experiment"]["readout"]["lines"]
    ]
    won, lost = sentences_of(render("demo", results))
    assert "+0.20 active per user over 28 days (−0.09 to 0.49), +2.0%, not distinguishable" in won
    assert lost == (
        "Do not ship reinforced on clicks: its active is not estimable yet; audit of clicks: drop."
    )


def test_a_trial_that_failed_a_check_says_so_in_each_verdict_and_in_a_warning():
    page = render("demo", failed(looped()))
    assert all("the experiment cannot be trusted; " in text for text in sentences_of(page))
    assert "The experiment cannot be trusted. sample ratio: control 1,300" in " ".join(
        head_of(page).text
    )


def test_at_most_three_warnings_the_most_severe_first_and_the_others_counted():
    # catches: a refusal before an alarm; a warning that is dropped instead of folded
    results = failed(looped())
    results["reinforce"]["alarms"] = ["coverage fell by 93%, from 0.46 to 0.03"]
    results["evaluate"]["not_estimable"] = {f"question {k}": f"no {k}" for k in range(4)}
    page = render("demo", results)
    head = " ".join(head_of(page).text)
    notes = re.findall(r'<p class="note([^"]*)"[^>]*>(.*?)</p>', page[: page.index("<main>")])
    assert len(notes) - 1 > MOST_WARNINGS  # the last is of a browser without scripts
    assert "on the training moments: coverage fell by 93%" in notes[0][1]
    assert "on the visits that followed" in notes[1][1]
    assert "The experiment cannot be trusted" in notes[2][1]
    assert "Not estimable: effect of clicks on habit" in notes[3][1]
    assert [tone for tone, _ in notes[:4]] == [" caution", " caution", " caution", ""]
    assert "The experiment cannot be trusted" in head
    assert "Not estimable" not in head
    folded = len(notes) - 1 - MOST_WARNINGS
    assert f"{folded} more warnings" in head_of(page).summaries
    assert [text for text in head_of(page).summaries if "warning" in text] == [
        f"{folded} more warnings"
    ]


def test_questions_with_one_reason_are_one_warning_and_those_about_policies_come_first():
    # catches: three notes that differ in the name of a model; a reason that is given to another
    results = looped()
    habit = results["reward"]["habit"]
    few = {"not_estimable": "fewer than 10 items have 20 mature entries"}
    habit["calibration"] = {"progressive": few, "auto_surrogate": few}
    results["evaluate"]["ranking"] = [
        row for row in results["evaluate"]["ranking"] if row["policy"] != "clicks"
    ]
    texts = [
        html.unescape(text)
        for text in re.findall(r'<p class="note">(Not estimable.*?)</p>', render("demo", results))
    ]
    label = habit["label"]
    assert texts[-1] == (
        f"Not estimable: calibration of progressive on {label} and calibration of auto_surrogate "
        f"on {label}: fewer than 10 items have 20 mature entries."
    )
    assert texts[0].startswith("Not estimable: effect of clicks on habit: habit: 12 of 1,250")
    assert texts[1] == (
        "Not estimable: off-policy value of reinforced on habit: n_eff = 41 of 9,000 slots "
        "A plain title."
    )


def test_one_folded_warning_is_counted_in_the_singular():
    results = full()
    results["reward"]["habit"]["calibration"]["auto_surrogate"] = calibrated()
    results["evaluate"]["not_estimable"] = {f"question {k}": f"no {k}" for k in range(4)}
    assert "1 more warning" in head_of(render("demo", results)).summaries


def test_the_head_shows_a_few_arms_and_folds_the_others():
    results = looped()
    arms = [f"arm {k}" for k in range(MOST_ARMS + 3)]
    results["experiment"]["arms"] += [{"arm": arm, "policy": arm} for arm in arms]
    page = render("demo", results)
    assert "5 more arms" in head_of(page).summaries
    shown = [text for text in head_of(page).text if text.startswith("No decision on")]
    assert len(shown) == MOST_ARMS - 2


@pytest.mark.parametrize("results", [full(), looped(), looped(HOSTILE), {}])
def test_nothing_but_the_head_stands_outside_folds(results):
    # catches: a section, a table, the list of sections or the foot of the page left open
    page = render("demo", results)
    unfolded = head_of(page)
    tags = [tag for tag, _ in unfolded.tags]
    assert not {"section", "table", "nav", "footer", "dl", "h2", "h3"} & set(tags)
    assert tags.count("figure") == (1 if results else 0)
    folds = [attributes for tag, attributes in unfolded.tags if tag == "details"]
    assert all("open" not in attributes for attributes in folds)
    assert {"id": "analyst", "class": "analyst"} in folds
    assert "For the analyst" in unfolded.summaries


def test_a_run_without_a_trial_says_what_it_can():
    def head(results: dict) -> str:
        return " ".join(head_of(render("shop", results)).text)

    simulated = full()
    assert "Reinforcement is above reward-weighted training in true value" in head(simulated)
    real = full()
    real["ingest"] = real.pop("simulate") | {"has_decisions": False}
    del real["ingest"]["exclude"]
    real["evaluate"]["true_value"] = None
    assert "Reinforcement is above reward-weighted training in habit NDCG@10" in head(real)
    logged = looped()
    del logged["experiment"], logged["audit"], logged["simulate"]
    assert "The log can value 2 of 3 policies" in head(logged)
    del real["evaluate"]
    assert "reward predicts later outcomes better than the prior alone" in head(real)
    del real["reward"]
    assert "habit: 20.0%" in head(real)
    del real["outcomes"]
    assert "5,000 events of 300 users" in head(real)
    assert "No stage of this run has a result to report." in head({})
    for results in (simulated, real, logged, {}):
        assert "decided" not in head(results)
    for results in (simulated, real, logged):
        assert "No experiment was run." in head(results)


def test_a_ranking_of_policies_that_were_not_reinforced_has_a_sentence():
    results = full()
    results["evaluate"]["true_value"] = None
    for name in ("ranking", "differences"):
        results["evaluate"][name] = [
            row for row in results["evaluate"][name] if row["policy"] in ("start", "popular")
        ]
    assert (
        "The start is above the popular policy in habit NDCG@10"
        in sentences_of(render("shop", results))[0]
    )


def test_a_trial_without_treatments_decided_nothing_and_does_not_say_so():
    results = looped()
    results["experiment"]["arms"] = results["experiment"]["arms"][:1]
    results["experiment"]["readout"]["decisions"] = []
    page = render("demo", results)
    assert "nothing was decided" not in words_of(page)
    assert "had no policy to decide on" in words_of(page)


@pytest.mark.parametrize("results", [full(), looped()])
def test_intervals_have_one_notation(results):
    # catches: `0.31 ± 0.04` in one table and `[0.27, 0.35]` in the next
    page = re.sub(r"<(script|style|pre)\b.*?</\1>", "", render("demo", results), flags=re.S)
    assert "±" not in page
    assert not re.search(r"\[[-−+]?\d", page)
    charts = re.search(r'id="charts">(.*?)</script>', render("demo", results), re.S)
    assert charts is not None
    assert "\\u00b1" not in charts[1]


def test_shares_have_their_interval_in_per_cent():
    rows = table_of(render("demo", full()), "Signals: mean outcome")
    assert rows[1][2] == "20.0% (19.0% to 21.0%)"


@pytest.mark.parametrize(("items", "enough"), [(LEAST_ITEMS - 1, False), (LEAST_ITEMS, True)])
def test_below_thirty_items_nothing_is_said_of_items(items, enough):
    # catches: "too narrow" or "nearer than one number for all" of a handful of items
    results = full()
    habit = results["reward"]["habit"]
    habit["calibration"]["progressive"] |= {"groups": items}
    habit["comparison"] = [
        row | {"items": items}
        for row in (compared("prior alone", 0, 0), compared("progressive", -0.05, 0.01))
    ]
    results["codes"]["items"] = items
    page = render("demo", results)
    text = words_of(page)
    few = f"too few items to tell ({items}; at least 30 are needed)"
    assert (few in text) == (not enough)
    assert ("too narrow" in text) == enough
    assert ("than one number for all" in text or "one number for all:" in text) == enough
    assert ("Believed in most" in text) == enough
    assert ("creator, shuffled" in text) == enough
    scores = table_of(page, "Early rewards on later entries")
    assert scores[2][-1] == (f"{'0.0500' if enough else 'too few items to tell'} ({items})")
    held = table_of(page, "Calibration of item means")[1][2]
    assert held == ("50%: 50%, 95%: 80%" if enough else "too few items to tell")


def test_a_share_differs_by_percentage_points():
    results = looped()
    results["outcomes"]["active"]["toml"] = (
        '[signals.active]\nentry = { kind = "enrolment" }\n'
        'measure = { kind = "active_days", threshold = 1 }\nwindow = [1, 28]\n'
    )
    rows = results["experiment"]["readout"]["lines"]
    rows[1] = line("active@c45a2484", "reinforced", 0.062, 0.015, "open")
    assert sentences_of(render("demo", results))[0].startswith(
        "Keep running reinforced on habit: +6.2 percentage points of users (active) over 28 days "
        "(3.3 to 9.1), +0.6%"
    )


def test_tables_scroll_in_a_box_that_the_keyboard_reaches():
    unfolded = re.findall(r'<div class="scroll"([^>]*)>', render("demo", looped()))
    assert len(unfolded) > 10
    for attributes in unfolded:
        assert 'tabindex="0"' in attributes
        assert 'role="region"' in attributes
        assert re.search(r'aria-label="[^"]+"', attributes)


# -- as a browser lays it out ----------------------------------------------------------------------

MEASURE = """<script>
window.addEventListener("load", function () { setTimeout(function () {
  var measured = {folded: document.documentElement.scrollHeight};
  document.querySelectorAll("details").forEach(function (fold) { fold.open = true; });
  measured.width = innerWidth;
  measured.page = document.documentElement.scrollWidth;
  measured.boxes = Array.from(document.querySelectorAll(".scroll")).map(function (box) {
    var cells = Array.from(box.querySelectorAll("th, td"));
    return {
      caption: box.querySelector("caption").textContent,
      shown: box.clientWidth, content: box.scrollWidth,
      scrolls: getComputedStyle(box).overflowX === "auto", keyboard: box.tabIndex === 0,
      right: Math.max.apply(null, cells.map(function (cell) {
        return cell.getBoundingClientRect().right - box.getBoundingClientRect().left + box.scrollLeft;
      })),
      cut: cells.filter(function (cell) { return cell.scrollWidth > cell.clientWidth + 1; }).length
    };
  });
  parent.postMessage(JSON.stringify(measured), "*");
}, 2000); });
</script>"""
FRAME = """<pre id="measured"></pre><script>
window.addEventListener("message", function (event) {
  document.getElementById("measured").textContent = event.data;
});
</script><iframe src="page.html" style="border: 0; width: %dpx; height: 700px"></iframe>"""


def chromium(folder: Path, file: str, *flags: str) -> str:
    """The DOM of a page after its scripts ran."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1500,1000",
        "--virtual-time-budget=10000",
        *flags,
        "--dump-dom",
        (folder / file).as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def measured(page: str, width: int, folder: Path) -> dict:
    """What a frame of this width shows: a window of Chromium cannot be as narrow as a phone."""
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    end = free.rindex("</body>")
    (folder / "page.html").write_text(free[:end] + MEASURE + free[end:], encoding="utf-8")
    (folder / "frame.html").write_text(FRAME % width, encoding="utf-8")
    dom = chromium(folder, "frame.html")
    told = re.search(r'<pre id="measured">(.*?)</pre>', dom, re.S)
    assert told is not None
    assert told[1], "the page measured nothing"
    return json.loads(html.unescape(told[1]))


def crowded() -> dict:
    """A run whose head is as full as it can be: many arms, many alarms, long refusals."""
    results = failed(with_unit(looped("A title that is rather long, as titles of albums may be")))
    arms = [f"an arm with a rather long name, {k}" for k in range(MOST_ARMS + 3)]
    results["experiment"]["arms"] += [{"arm": arm, "policy": arm} for arm in arms]
    results["experiment"]["readout"]["lines"] += [
        line("active@c45a2484", arm, 0.2, 0.15, "open") for arm in arms
    ]
    results["experiment"]["truth"] += [
        {"arm": arm, "level": estimate(10, 1), "difference": estimate(1, 1)} for arm in arms
    ]
    fell = "coverage fell by 93%, from 0.46 to 0.03"
    results["reinforce"]["alarms"] = [fell, fell, fell]
    results["reinforce"]["rivals"]["clicks"]["alarms"] = [fell]
    habit, signal = results["audit"]["arms"]["reinforced"], "a further signal that pays@1"
    habit["verdicts"].append(verdict_on(signal, "undecided", "it cannot be told"))
    return results


@NEEDS_CHROMIUM
@pytest.mark.parametrize("width", [1280, 1000, 400])
def test_no_column_is_cut_and_the_page_never_scrolls_sideways(width, tmp_path):
    # catches: the verdict column that reads "und", "dro"
    page = measured(render("demo", crowded()), width, tmp_path)
    assert page["width"] == width
    assert page["page"] <= width
    assert len(page["boxes"]) > 10
    for box in page["boxes"]:
        assert box["scrolls"]
        assert box["keyboard"]
        assert box["cut"] == 0, box
        assert box["right"] <= box["content"] + 1, box  # the last column can be scrolled to
    if width == 1280:
        assert [box["caption"] for box in page["boxes"] if box["content"] > box["shown"]] == []
        assert page["folded"] <= 3 * SCREEN


@NEEDS_CHROMIUM
def test_a_link_and_print_open_folds_and_charts_in_folds_are_drawn_at_full_width(tmp_path):
    (tmp_path / "page.html").write_text(render("demo", looped()), encoding="utf-8")
    assert CHROMIUM is not None
    plain = chromium(tmp_path, "page.html")
    assert re.search(r'<details class="analyst" id="analyst">', plain)
    charts = re.findall(r'<svg [^>]*\bclass="marks"[^>]*\bwidth="([\d.]+)"', plain)
    assert len(charts) > 15
    assert min(map(float, charts)) > 200
    (tmp_path / "frame.html").write_text(
        "<script>location.replace('page.html#loop')</script>", encoding="utf-8"
    )
    linked = chromium(tmp_path, "frame.html")
    assert re.search(r'<details class="analyst" id="analyst" open="">', linked)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    end = free.rindex("</body>")
    asked = '<script>window.dispatchEvent(new Event("beforeprint"));</script>'
    (tmp_path / "print.html").write_text(free[:end] + asked + free[end:], encoding="utf-8")
    printed = re.sub(r"<script.*?</script>", "", chromium(tmp_path, "print.html"), flags=re.S)
    folds = re.findall(r"<details[^>]*>", printed)
    assert len(folds) > 4
    assert all("open" in fold for fold in folds)
