"""Record the pictures of docs/review.md: the browser test, with its screenshots kept.

    .venv/bin/python docs/make_review_pictures.py

Needs what the test needs: Label Studio's environment (`make setup`) and Chromium.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parent / "images"
TEST = "tests/e2e/test_review_page.py"
WIDTH = 1500  # of 1880; a picture stays below 300 KB
COLORS = 160
# What of the browser's window is of interest: left, top, right, bottom.
PAGE = (0, 0, 1880, 1040)
SHEET = (240, 80, 1070, 840)
VIEWER = (1060, 240, 1560, 990)
CROPS = {
    "page": PAGE,
    "sheet-click": SHEET,
    "model-clicks": VIEWER,
    "explode": VIEWER,
    "verbs": VIEWER,
    "preview": VIEWER,
    "verdict": PAGE,
}


def main() -> None:
    """Run the test and put its pictures into docs/images."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "SEGVIGEN_SCREENSHOTS": folder}
        command = [sys.executable, "-m", "pytest", "-q", TEST]
        done = subprocess.run(command, env=environment, check=False)
        if done.returncode:
            raise SystemExit(f"{TEST} ended with {done.returncode}; no picture was changed")
        for name, crop in CROPS.items():
            save_picture(Path(folder) / f"review-{name}.png", IMAGES / f"review-{name}.png", crop)


def save_picture(source: Path, target: Path, crop: tuple[int, int, int, int]) -> None:
    """Cut, shrink to at most WIDTH and reduce the colours."""
    picture = Image.open(source).convert("RGB").crop(crop)
    picture.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    picture.quantize(COLORS).save(target, optimize=True)


if __name__ == "__main__":
    main()
