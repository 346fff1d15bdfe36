"""Take the pictures of the report: ``python docs/report_pictures.py CARDS [HOUSE]`` writes them to ``docs/images``.

The arguments are run folders. Those of the documentation come from short runs on supervised starts of the presets::

    gtr sft ablation-points24 && gtr sft tiny-alfworld --seed 7
    gtr train tiny-points24 --start runs/ablation-points24-sft-s0 --set threads=1 --set updates=6 \
        --set rollout.hands=32 --set evaluation.every=2 --set evaluation.interim_episodes=100 \
        --set evaluation.episodes=200
    gtr train tiny-alfworld --start runs/tiny-alfworld-sft-s7 --set threads=1 --set updates=4 \
        --set rollout.hands=8 --set rollout.attempts=6 --set evaluation.every=2 \
        --set evaluation.interim_episodes=24 --set evaluation.episodes=24 --set evaluation.n_envs=24

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
DEEPEST = """
((role, outcome) => {
  const degrees = () => [...document.querySelectorAll("#tokens span")].map((token) => Number(token.className[1]));
  const places = [];
  for (const { dataset } of document.querySelectorAll(`#map button${outcome}[data-id^=${role}]`)) {
    document.querySelector(`[data-id=${dataset.id}]`).click();
    [...document.querySelectorAll("#timeline button")].forEach((button, step) => {
      document.querySelectorAll("#timeline button")[step].click();
      places.push([degrees().reduce((a, b) => a + b, 0), dataset.id, step]);
    });
  }
  const [, id, step] = places.reduce((a, b) => (b[0] > a[0] ? b : a));
  document.querySelector(`[data-id=${id}]`).click();
  document.querySelectorAll("#timeline button")[step].click();
  return degrees().indexOf(Math.max(...degrees())) + 1;
})
"""
"""Goes to the step with the most colour in its tokens; returns the number of its strongest token, from 1."""


def take(page: Chromium, name: str, selector: str = "#viewer", margin: int = 0) -> None:
    """Save a picture of an element with few colours."""
    with Image.open(BytesIO(page.picture(selector, margin))) as picture:
        flat = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    flat.save(FOLDER / f"{name}.png", optimize=True)


def colour_by(page: Chromium, colouring: str, outcome: str = "") -> int:
    """Switch the colours and go to the student's step that shows most of them.

    Args:
        page: The report.
        colouring: Key of the colouring.
        outcome: ``.won`` or ``.lost`` for such episodes only.

    Returns:
        Number of the token with the strongest colour, from 1.
    """
    page.click(f"[data-focus='Coloured by {colouring}']")
    return int(page.run(f"{DEEPEST}('student', {outcome!r})"))


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
        colour_by(page, "probability", ".lost")
        take(page, "report")
        page.prefer("dark")
        page.point(f"#tokens span:nth-child({colour_by(page, 'kl')})")
        take(page, "report_kl", ".told", margin=16)
        if arguments.house:
            page.open(build_report(arguments.house))
            colour_by(page, "difference")
            take(page, "report_alfworld")


if __name__ == "__main__":
    main()
