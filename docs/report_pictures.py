"""Take the pictures of the report: ``python docs/report_pictures.py CARDS [HOUSE]`` writes them to ``docs/images``.

The arguments are run folders. Those of the documentation come from short runs on the presets' own supervised starts::

    gtr sft tiny-points24 && gtr sft tiny-alfworld
    gtr train tiny-points24 --start runs/tiny-points24-sft-s0 --set updates=6 --set rollout.hands=32 \
        --set evaluation.every=2 --set evaluation.interim_episodes=100 --set evaluation.episodes=200
    gtr train tiny-alfworld --start runs/tiny-alfworld-sft-s0 --set updates=4 --set rollout.hands=8 \
        --set rollout.attempts=6 --set evaluation.every=2 --set evaluation.interim_episodes=24 \
        --set evaluation.episodes=24 --set evaluation.n_envs=24

They show how the page looks, and measure nothing. A Chromium must be installed.
"""

from __future__ import annotations

import argparse
import sys
from io import BytesIO
from pathlib import Path

from chromium import Chromium, find_chromium
from PIL import Image

from gtr_agents.report import build_report

FOLDER = Path(__file__).parent / "images"
WIDTH = 1120
COLOURS = 256
"""Of a picture: its file is a third of one with all colours, and looks the same."""
DEEPEST = "(() => { const sums = [...document.querySelectorAll('#timeline button')].map((button) => { button.click();"
DEEPEST += " return [...document.querySelectorAll('#tokens span')].reduce((n, t) => n + Number(t.className[1]), 0); });"
DEEPEST += " return sums.indexOf(Math.max(...sums)) + 1; })()"
"""Number of the step whose tokens have the most colour."""
STRONGEST = "(() => { const degrees = [...document.querySelectorAll('#tokens span')].map((t) => t.className[1]);"
STRONGEST += " return degrees.indexOf(degrees.reduce((a, b) => (a > b ? a : b))) + 1; })()"
"""Number of the token with the strongest colour."""
LOST = "[...document.querySelectorAll('#map button.lost')].findLast((b) => b.dataset.id.startsWith('student')).click()"
"""Opens an episode that the student lost; more is to be seen in it."""


def take(page: Chromium, name: str, selector: str = "#viewer", margin: int = 0) -> None:
    """Save a picture of an element with few colours."""
    with Image.open(BytesIO(page.picture(selector, margin))) as picture:
        flat = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    flat.save(FOLDER / f"{name}.png", optimize=True)


def colour_by(page: Chromium, colouring: str) -> None:
    """Switch the colours of the tokens and go to the step with most of them."""
    page.click(f"[data-focus='Coloured by {colouring}']")
    page.click(f"#timeline button:nth-child({page.run(DEEPEST)})")


def main() -> None:
    """Take the pictures of the given runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cards", type=Path, help="run folder of a card game")
    parser.add_argument("house", type=Path, nargs="?", help="run folder of ALFWorld")
    arguments = parser.parse_args()
    browser = find_chromium()
    if browser is None:
        sys.exit("No Chromium is on the PATH. On Debian: apt install chromium")
    with Chromium(browser, (WIDTH, 1400)) as page:
        page.prefer("light")
        page.open(build_report(arguments.cards))
        page.run(LOST)
        colour_by(page, "probability")
        take(page, "report")
        page.prefer("dark")
        colour_by(page, "kl")
        page.point(f"#tokens span:nth-child({page.run(STRONGEST)})")
        take(page, "report_kl", ".told", margin=16)
        if arguments.house:
            page.open(build_report(arguments.house))
            colour_by(page, "difference")
            take(page, "report_alfworld")


if __name__ == "__main__":
    main()
