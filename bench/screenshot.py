"""Draw docs/figures/report-head.png, the first screen of the demo's report, with Chromium:
`longplay demo`, then `python bench/screenshot.py`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "figures" / "report-head.png"
MOST_BYTES = 150_000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("report", nargs="?", type=Path, default=Path("runs/demo/report.html"))
    options.add_argument("--width", type=int, default=1000, help="of the window, pixels")
    options.add_argument("--height", type=int, default=620, help="of the window, pixels")
    given = options.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium found; install it (Debian: apt-get install chromium)")
    if not given.report.exists():
        sys.exit(f"{given.report} is not there; run `longplay demo` first, or name a report")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--window-size={given.width},{given.height}",
                "--virtual-time-budget=10000",
                f"--screenshot={PICTURE}",
                given.report.resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
        )
    size = PICTURE.stat().st_size
    if size > MOST_BYTES:
        sys.exit(
            f"{PICTURE.name} has {size:,} bytes, expected at most {MOST_BYTES:,}: a smaller window"
        )
    print(f"{PICTURE.relative_to(ROOT)}: {size:,} bytes")


if __name__ == "__main__":
    main()
