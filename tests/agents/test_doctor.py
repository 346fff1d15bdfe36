"""`gtr doctor`: what it finds on a machine, what it advises, and when it fails."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest
from rich.console import Console

from gtr_agents import doctor
from gtr_agents.cli import main
from gtr_agents.doctor import State, examine
from gtr_envs.alfworld.install import ENGINE_PACKAGES, missing_for_engine


def without(monkeypatch: pytest.MonkeyPatch, *absent: str) -> None:
    """Let some distributions be missing."""
    version = metadata.version

    def told(name: str) -> str:
        if name in absent:
            raise metadata.PackageNotFoundError(name)
        return ENGINE_PACKAGES.get(name) or version(name)

    monkeypatch.setattr(metadata, "version", told)


def found(subject: str) -> doctor.Finding:
    return next(finding for finding in examine() if finding.subject == subject)


def test_this_machine_has_what_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    printed = capsys.readouterr().out
    assert "Everything that is needed is there." in printed
    assert metadata.version("torch") in printed


def test_a_missing_library_fails_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "peft")
    with pytest.raises(SystemExit) as exit_:
        main(["doctor"])
    assert exit_.value.code == 1
    printed = capsys.readouterr().out
    assert "Something that is needed is missing." in printed
    assert found("peft") == ("peft", State.MISSING, "not installed", 'Run: pip install "gtr-suite[agents]"')


def test_brackets_of_an_extra_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    without(monkeypatch, "textworld")
    doctor.report(Console(width=300))
    assert 'pip install "gtr-suite[alfworld]"' in capsys.readouterr().out


def test_an_installed_engine_needs_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert missing_for_engine() == []
    assert found("ALFWorld engine").state == State.OK


def test_a_missing_engine_tells_of_compiler_make_python_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "fast-downward-textworld", "mementos")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    told = [item.what for item in missing_for_engine()]
    assert [what.partition(":")[0] for what in told] == [
        "a C++ compiler",
        "make",
        "a program called `python`",
        "an active virtual environment",
        "packages that are not installed",
    ]
    assert "fast-downward-textworld 20.6.4, mementos 1.3" in told[-1]
    assert found("ALFWorld engine").state == State.OPTIONAL


@pytest.mark.parametrize(
    ("system", "machine", "told"),
    [
        ("Windows", "AMD64", "found Windows"),
        ("Linux", "aarch64", "found Linux on aarch64"),
        ("Darwin", "arm64", "arm64"),
    ],
)
def test_platforms_without_an_engine_are_named(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, told: str
) -> None:
    without(monkeypatch, "textworld")
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert told in missing_for_engine()[0].what


def test_another_version_of_the_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    monkeypatch.setitem(ENGINE_PACKAGES, "mementos", "7.7")
    without(monkeypatch)
    monkeypatch.setattr(metadata, "version", lambda name: "1.9.0" if name == "textworld" else ENGINE_PACKAGES[name])
    assert [item.what for item in missing_for_engine()] == ["package textworld 1.7: found 1.9.0, which was not tried"]


def test_a_data_folder_counts_only_if_it_holds_games(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert "no json_2.1.1/train" in found("ALFRED's games").detail
    (tmp_path / "json_2.1.1" / "train").mkdir(parents=True)
    assert found("ALFRED's games").state == State.OK
