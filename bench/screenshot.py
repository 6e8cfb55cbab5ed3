"""Draw docs/figures/report-head.png and loop-report.png, the head of the demo's report and its section
on the loop, with Chromium: `longplay demo`, then `python bench/screenshot.py`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"
# picture -> style added to the report (what to leave out), width and height of the window in pixels
LOOP = "header, nav, footer, section:not(#loop) { display: none } #loop { border: 0; margin: 0 }"
VERDICT = "#loop .answer p:nth-child(n + 4), #loop > .scroll, #loop > .aside { display: none }"
PICTURES = {
    "report-head.png": (f"{LOOP} {VERDICT}", 1000, 490),  # the verdict and its forest plot
    "loop-report.png": (LOOP, 1160, 1400),
}
MOST_BYTES = 150_000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("report", nargs="?", type=Path, default=Path("runs/demo/report.html"))
    given = options.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium found; install it (Debian: apt-get install chromium)")
    if not given.report.exists():
        sys.exit(f"{given.report} is not there; run `longplay demo` first, or name a report")
    page = given.report.read_text()
    for name, (style, width, height) in PICTURES.items():
        styled = page.replace("</head>", f"<style>{style}</style></head>", 1)
        take(browser, styled, FIGURES / name, width, height)


def take(browser: str, page: str, picture: Path, width: int, height: int) -> None:
    """Write what a window of this size shows of a page."""
    with tempfile.TemporaryDirectory() as profile:
        file = Path(profile) / "page.html"
        file.write_text(page)
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--hide-scrollbars",
                "--force-device-scale-factor=0.7",
                f"--user-data-dir={profile}",
                f"--window-size={width},{height}",
                "--virtual-time-budget=10000",
                f"--screenshot={picture}",
                file.as_uri(),
            ],
            check=True,
            capture_output=True,
        )
    size = picture.stat().st_size
    if size > MOST_BYTES:
        sys.exit(f"{picture.name} has {size:,} bytes, expected at most {MOST_BYTES:,}")
    print(f"{picture.relative_to(ROOT)}: {size:,} bytes")


if __name__ == "__main__":
    main()
