"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAST = ["environment_only.py", "custom_policy_loop.py"]


def run_example(name: str, folder: Path) -> str:
    """Run an example in an empty folder and return what it prints."""
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)], check=True, cwd=folder, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("name", FAST)
def test_the_example_runs_and_says_something(name: str, tmp_path: Path) -> None:
    assert run_example(name, tmp_path).strip()


def test_the_environment_example_saves_a_picture(tmp_path: Path) -> None:
    run_example("environment_only.py", tmp_path)
    picture = (tmp_path / "points24.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 2000


def test_every_example_opens_with_what_it_shows() -> None:
    for path in (ROOT / "examples").glob("*.py"):
        assert path.read_text().startswith('"""'), path.name
