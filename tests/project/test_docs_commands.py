"""Every command of the documentation is one: its subcommand, options, preset and overrides exist."""

from __future__ import annotations

import re
import shlex
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import tyro

from gtr_agents import cli
from gtr_agents.config import load_config

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMANDS = {
    "demo": cli.demo, "sft": cli.sft, "train": cli.train, "eval": cli.evaluate, "serve": cli.serve, "merge": cli.merge,
    "report": cli.report, "compare": cli.compare, "replay": cli.replay, "play": cli.play, "solve": cli.solve,
    "envs": cli.envs, "episodes": cli.episodes, "presets": cli.presets, "plan": cli.plan, "doctor": cli.doctor,
}  # fmt: skip
GTR = re.compile(r"^(?:.*--module gtr_agents\.cli|(?:\w+=\S+ )*(?:\.venv/bin/)?gtr) (.*)$")
SCRIPT = re.compile(r"^(?:.* )?(?:python|\.venv/bin/python)3? ((?:benchmarks|examples|docs|tests)/\S+\.py)")


def lines(page: Path) -> list[str]:
    """The lines of a page's shell blocks, continued ones joined."""
    shell = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [line.strip().rstrip("&").strip() for block in shell for line in block.replace("\\\n", " ").splitlines()]


WRITTEN = sorted({match[1] for page in PAGES for line in lines(page) if (match := GTR.match(line))})
SCRIPTS = sorted({match[1] for page in PAGES for line in lines(page) if (match := SCRIPT.match(line))})


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What a command would be called with; nothing of it is done."""
    app, got = tyro.extras.SubcommandApp(), {}
    for name, function in COMMANDS.items():

        @wraps(function)
        def note(*values: Any, _function: Any = function, **options: Any) -> None:
            got.update(options | {"command": _function.__name__, "values": values})

        app.command(note, name=name)
    app.cli(args=arguments, prog="gtr", description="")
    return got


@pytest.mark.parametrize("command", WRITTEN)
def test_a_command_of_the_documentation_can_be_typed(command: str) -> None:
    got = parsed(shlex.split(command, comments=True))
    preset = got.get("preset") or (got["values"][0] if got["values"] else "")
    if got["command"] in ("train", "sft", "plan") and preset and not str(preset).endswith(".yaml"):
        load_config(str(preset), got.get("overrides", ()))


def test_there_are_commands_and_a_wrong_one_is_seen() -> None:
    assert len(WRITTEN) > 40
    with pytest.raises(SystemExit):
        parsed(["train", "tiny-points24", "--outt", "runs/x"])
    with pytest.raises(SystemExit):
        parsed(["trian"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_of_the_documentation_is_there(script: str) -> None:
    assert (ROOT / script).is_file()
