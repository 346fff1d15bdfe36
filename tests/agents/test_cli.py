"""The ``gtr`` command: help, small commands, and what bad input gets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from small_models import tiny_policy

from gtr_agents import cli
from gtr_agents.config import preset_names
from gtr_agents.evaluation import Evaluator
from gtr_envs.registration import COMPAT_ENVS, ENVS, HOUSEHOLD_ENVS

COMMANDS = (
    *("demo", "sft", "train", "eval", "episodes", "merge", "report", "compare", "replay", "play", "solve", "envs"),
    "presets",
)
Gtr = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gtr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gtr]:
    """Run the command in this process, in an empty folder: (status, output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = 0
        try:
            cli.main(list(arguments))
        except SystemExit as ending:
            status = int(ending.code or 0)
        output = capsys.readouterr()
        return status, output.out, output.err

    yield run
    signal.signal(signal.SIGTERM, handler)


def test_help_lists_every_command(gtr: Gtr) -> None:
    status, out, _ = gtr("--help")
    assert status == 0
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(gtr: Gtr, command: str) -> None:
    status, out, _ = gtr(command, "--help")
    assert status == 0
    assert len(out) > 200


def test_help_loads_no_torch() -> None:
    code = """
import sys
from gtr_agents import cli
try:
    cli.main(["--help"])
except SystemExit:
    print("torch" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False"


def test_a_hand_is_solved_exactly(gtr: Gtr) -> None:
    status, out, _ = gtr("solve", "3", "3", "8", "8")
    assert status == 0
    assert out.splitlines() == ["8 / ( 3 - 8 / 3 ) = 24"]


def test_solutions_can_be_limited_and_retargeted(gtr: Gtr) -> None:
    _, out, _ = gtr("solve", "6", "6", "6", "6", "--limit", "1")
    assert len(out.splitlines()) == 2
    assert "more" in out
    assert gtr("solve", "1", "1", "1", "1", "--target", "4")[1].startswith("1 + 1 + 1 + 1 = 4")
    assert "no solution" in gtr("solve", "1", "1", "1", "1")[1]


def test_every_environment_is_listed_with_a_line_of_its_own(gtr: Gtr) -> None:
    status, out, _ = gtr("envs")
    assert status == 0
    rows = [line.split(maxsplit=2) for line in out.splitlines() if "-v0 " in line]
    assert [row[0] for row in rows] == [*ENVS, *HOUSEHOLD_ENVS, *COMPAT_ENVS]
    assert len({row[2] for row in rows}) == len(rows)
    assert "gtr envs ID" in out
    assert "gtr play ID --set NAME=VALUE" in out


def test_all_is_told_about_one_environment(gtr: Gtr) -> None:
    status, out, _ = gtr("envs", "Points24Duel-v0")
    assert status == 0
    assert "A race to 24" in out
    assert "strength of the solver, 0 to 1" in out


def test_the_strength_and_other_arguments_reach_the_game(gtr: Gtr, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, ending in (
        (("--strength", "1"), "You lost."),
        (("--set", "opponent=0", "--set", "max_rounds=9"), "A draw."),
    ):
        monkeypatch.setattr(sys, "stdin", StringIO("=\n"))
        status, out, _ = gtr("play", "Points24Duel-v0", "--terminal", "--seed", "3", *options)
        assert status == 0
        assert f"{ending} 1 move" in out
        assert out.endswith("Goodbye.\n")


def test_a_player_is_told_that_nothing_can_be_undone(gtr: Gtr) -> None:
    assert "There is no undo" in gtr("play", "--help")[1]


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("ctrl_c_is_heard")
def test_ctrl_c_leaves_a_game_in_the_terminal() -> None:
    command = [sys.executable, "-m", "gtr_agents.cli", "play", "NumberLine-v0", "--terminal"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as player:
        assert player.stdout is not None
        while player.stdout.read(1) not in (b">", b""):
            pass
        player.send_signal(signal.SIGINT)
        _, errors = player.communicate(timeout=60)
    assert player.returncode == 130
    assert errors == b"gtr: interrupted\n"


def test_presets_are_listed(gtr: Gtr) -> None:
    status, out, _ = gtr("presets")
    assert status == 0
    assert all(name in out for name in preset_names())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "tiny-point24"), "Did you mean 'tiny-points24'"),
        (("train", "tiny-points24", "--set", "ppo.learning_rat=1"), "Did you mean 'ppo.learning_rate'"),
        (("train", "tiny-points24", "--set", "updates"), "section.option=value"),
        (("train", "tiny-points24", "--set", "updates=none"), "updates"),
        (("train",), "tiny-points24"),
        (("train", "--resume", "nowhere"), "nowhere"),
        (("sft", "tiny-points24", "--set", "sft=null"), "no supervised start"),
        (("eval", "nowhere"), "no run folder"),
        (("eval", "nowhere", "--env", "Points24-v0"), "nowhere"),
        (("eval", "nowhere", "--preset", "tiny-points24", "--episodes", "0"), "episodes"),
        (("eval", "nowhere", "--preset", "tiny-points24", "--split", "tset"), "validation"),
        (("eval",), "at least one model"),
        (("eval", "nowhere", "--on", "points24/test-v1"), "nowhere"),
        (("episodes", "points24/tset-v1"), "Did you mean 'points24/test-v1'"),
        (("merge", "nowhere", "elsewhere", "--out", "merged"), "nowhere"),
        (("merge", "nowhere", "--out", "merged"), "at least one checkpoint"),
        (("merge", "a", "b", "--out", "merged", "--method", "tie"), "ties"),
        (("merge", "a", "b", "--out", "merged", "--shard-size", "big"), "such as 500MB"),
        (("report", "nowhere"), "nowhere"),
        (("compare", "nowhere"), "nowhere"),
        (("compare",), "at least one run"),
        (("replay", "nowhere", "--gif"), "nowhere"),
        (("play", "Points25-v0", "--terminal"), "Did you mean 'Points24-v0'"),
        (("play", "Points24-v0", "--terminal", "--set", "del=any"), "Did you mean 'deal'"),
        (("play", "Points24-v0", "--terminal", "--set", "deal"), "has the form"),
        (("play", "Points24Duel-v0", "--terminal", "--strength", "2"), "from 0 to 1"),
        (("play", "gym_cards/Blackjack-v0", "--terminal"), "VisualBlackjack-v0"),
        (("envs", "Points25-v0"), "Did you mean 'Points24-v0'"),
        (("solve", "3", "x"), "x"),
        (("train", "tiny-points24", "--sed", "3"), "--seed"),
        (("trian",), "train"),
        (("train", "tiny-points24", "--set", "env.kwargs.iamge_size=96"), "iamge_size"),
        (("train", "tiny-points24", "--set", "env.id=Points25-v0"), "Points24"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_explained_with_status_two(gtr: Gtr, arguments: tuple[str, ...], message: str) -> None:
    status, out, err = gtr(*arguments)
    assert status == 2
    assert message in out + err
    assert "Traceback" not in out + err


def test_a_model_folder_is_evaluated_on_a_presets_environment(gtr: Gtr, tmp_path: Path) -> None:
    tiny_policy(max_new_tokens=3).save(tmp_path / "model")
    options = ("--preset", "tiny-ezpoints", "--episodes", "4", "--greedy", "--split", "validation", "--out", "e/r.json")
    status, out, _ = gtr("eval", "model", *options)
    assert status == 0
    assert "success_rate" in out
    written = json.loads((tmp_path / "e" / "r.json").read_text())
    assert (written["episodes"], written["env"]) == (4, "EZPoints-v0")
    assert (written["greedy"], written["teacher"], written["split"]) == (True, False, "validation")
    assert written["success_low"] <= written["success_rate"] <= written["success_high"]


def test_a_model_folder_is_evaluated_on_a_named_environment(gtr: Gtr, tmp_path: Path) -> None:
    tiny_policy(max_new_tokens=3).save(tmp_path / "model")
    assert gtr("eval", "model", "--env", "EZPoints-v0", "--episodes", "2")[0] == 0
    status, _, err = gtr("eval", "model", "--env", "EZPoint-v0", "--episodes", "2")
    assert (status, "EZPoints`" in err) == (2, True)


def test_a_model_folder_has_no_teacher(gtr: Gtr, tmp_path: Path) -> None:
    tiny_policy(max_new_tokens=3).save(tmp_path / "model")
    status, _, err = gtr("eval", "model", "--env", "EZPoints-v0", "--teacher")
    assert status == 2
    assert "no teacher" in err


def test_an_interruption_ends_with_status_130(gtr: Gtr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_policy(max_new_tokens=3).save(tmp_path / "model")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Evaluator, "__call__", interrupted)
    status, _, err = gtr("eval", "model", "--env", "EZPoints-v0")
    assert status == 130
    assert "interrupted" in err


def test_the_exit_status_reaches_the_shell() -> None:
    command = [sys.executable, "-m", "gtr_agents.cli", "presetz"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "presets" in result.stdout + result.stderr
