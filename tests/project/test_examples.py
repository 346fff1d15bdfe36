"""The examples run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
PAGE = (ROOT / "docs" / "examples.md").read_text()


class Run(NamedTuple):
    """How an example is run, and what comes of it."""

    shown: str
    """Pattern of what it prints."""
    arguments: str = ""
    """Small numbers, where its own take too long."""
    written: str = ""
    """A picture that it writes."""


RUNS = {
    "alfworld_expert.py": Run(r"put a .*\n(> .*\n)+> move .* reward \+50\.33\nwrote .*gif\n", written="household.gif"),
    "custom_environment.py": Run(
        r"contract suite is content\nthe expert wrote (\d{4}), the time was \1, return \+1\n", written="clock.png"
    ),
    "custom_policy_loop.py": Run(r"   1 ideas: (.*\n)+ 100 ideas: wins .*% of 20 hands", "--hands 20"),
    "duel.py": Run(r"at the same time: player_0 wins\n(.*\n)alone against a solver: win\n", written="duel.png"),
    "environment_only.py": Run(r"perfect player: .*=   return \+10\n", written="points24.png"),
    "free_teacher_in_hf_trainer.py": Run(
        r"'teacher/version': (.*\n)+student: .*% right\nteacher: .*% right, merged from 20 checkpoints\n", "--steps 40"
    ),
    "minari_dataset.py": Run(r": 2 episodes(.*\n)+.*=   reward \+10   as recorded\n", "--episodes 2"),
    "record_video.py": Run(
        r"0000\.png(.*\n)+.*=   reward \+10\nwrote .*gif\n", written="recordings/episode-000000/episode.gif"
    ),
    "sb3_cnn_baseline.py": Run(r"at random: .*\nafter   1024 steps: .*%\n", "--steps 1024 --episodes 5"),
    "train_with_free_teacher.py": Run(
        r"teacher: \d\.\d+\nstudent: \d\.\d+\n", "--sft-steps 1 --updates 1 --episodes 2"
    ),
    "trl_grpo.py": Run(
        r"imitation: loss \d\.\d+\n(.*\n)+step   2: return .*, won .*%, .* calls an episode\n",
        "--imitation-steps 2 --steps 2",
    ),
    "use_in_research.py": Run(r"easy +100\.0%\n(.*\n)+ +gtr-turbo +\d+\.\d%\n", "--episodes 4 --mistake-rate 0"),
}
SLOW = {"train_with_free_teacher.py"}
NEEDS = {"alfworld_expert.py": "textworld", "trl_grpo.py": "trl"}
"""What is not in the extra `dev` or may be left out of it."""


def run_example(name: str, folder: Path, *arguments: str) -> str:
    """Run an example in a folder and return what it prints; a warning is an error."""
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / name), *arguments]
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in EXAMPLES])
def test_the_example_runs_and_shows_what_it_promises(name: str, tmp_path: Path) -> None:
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}")
    run = RUNS[name]
    printed = run_example(name, tmp_path, *run.arguments.split())
    assert re.search(run.shown, printed), printed
    assert "NOT" not in printed
    if run.written:
        picture = (tmp_path / run.written).read_bytes()
        assert picture.startswith((b"\x89PNG", b"GIF89a"))
        assert len(picture) > 2000


def test_a_second_look_at_a_dataset_takes_the_one_that_is_there(tmp_path: Path) -> None:
    first = run_example("minari_dataset.py", tmp_path, "--env", "NumberLine-v0", "--episodes", "2")
    again = run_example("minari_dataset.py", tmp_path, "--env", "NumberLine-v0", "--episodes", "9")
    assert "is there already" in again
    assert again.endswith(first)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_help_of_an_example_opens_with_what_it_shows(name: str, tmp_path: Path) -> None:
    first_sentence = re.match(r'"""(.+?)[.:;]', (ROOT / "examples" / name).read_text())
    assert first_sentence, "expected a docstring at the top"
    assert first_sentence[1] in " ".join(run_example(name, tmp_path, "--help").split())


def test_the_page_names_every_example_and_no_other() -> None:
    assert set(re.findall(r"\w+\.py", PAGE)) == set(EXAMPLES)
