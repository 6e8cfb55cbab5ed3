"""Draw docs/figures/report-head.png and loop-report.png, the head of the demo's report and its
section on the loop, with Chromium: `longplay demo`, then `python bench/screenshot.py`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"
# the section on the loop alone, opened
LOOP = "header, nav, footer, .facts, summary, section:not(#loop) { display: none } "
LOOP += ".analyst { border: 0; margin: 0; padding: 0 } #loop { border: 0; margin: 0 }"
# picture -> style added to the report, anchor, width and height of the window in pixels
PICTURES = {
    "report-head.png": ("", "", 1280, 920),
    "loop-report.png": (LOOP, "loop", 1280, 1400),
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
    for name, (style, anchor, width, height) in PICTURES.items():
        styled = page.replace("</head>", f"<style>{style}</style></head>", 1)
        take(browser, styled, anchor, FIGURES / name, width, height)


def take(browser: str, page: str, anchor: str, picture: Path, width: int, height: int) -> None:
    """Write what a window of this size shows of a page, opened at an anchor."""
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
                f"{file.as_uri()}#{anchor}",
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
