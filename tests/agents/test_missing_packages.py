"""Without the extra ``agents`` everything says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gtr_agents import entry
from gtr_agents.errors import missing_package


def hide(monkeypatch: pytest.MonkeyPatch, package: str, *users: str) -> None:
    """Let a package be missing, as Python itself marks it, for modules that are imported anew."""
    for name in [name for name in sys.modules if name in users or name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def test_the_command_names_the_package_and_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hide(monkeypatch, "tyro", "gtr_agents.cli")
    with pytest.raises(SystemExit) as stopped:
        entry.main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "'tyro', which is not installed" in said
    assert 'pip install "gtr-suite[agents]"' in said


@pytest.mark.parametrize("name", ["PPO", "VLMPolicy", "TeacherManager", "evaluate"])
def test_a_public_name_whose_package_is_missing_says_so(name: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; from gtr_agents import {name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("gtr_agents.errors.DependencyError: Training needs the package 'torch'")


def test_a_missing_module_of_our_own_is_a_fault_and_not_an_extra() -> None:
    with pytest.raises(ModuleNotFoundError, match="gone"):
        missing_package(ModuleNotFoundError("gone", name="gtr_agents.gone"))


def test_the_installed_command_goes_through_it() -> None:
    code = "import sys; sys.modules['tyro'] = None; sys.argv = ['gtr', 'envs']; import gtr_agents.entry as e; e.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("gtr: error: Training needs the package 'tyro'")
