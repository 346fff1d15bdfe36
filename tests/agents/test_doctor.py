"""`gtr doctor`: what it finds on a machine, what it advises, and when it fails."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections import namedtuple
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


# --- machines on which something is wrong: real processes that see other packages


def machine(folder: Path, *, without: tuple[str, ...] = (), other: dict[str, str] | None = None) -> dict[str, str]:
    """Build a folder of packages like this machine's, without some and with others' versions changed.

    Returns:
        The environment of a process for which these packages are all there is; to be run with ``python -S``.
    """
    folder.mkdir()
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for item in Path(place).iterdir():
            name = item.name.partition(".")[0].partition("-")[0]
            if item.suffix != ".pth" and name not in without and not (folder / item.name).exists():
                (folder / item.name).symlink_to(item)
    for name, version in (other or {}).items():
        info = next(folder.glob(f"{name}-*.dist-info"))
        changed = (
            (info / "METADATA")
            .read_text(encoding="utf-8")
            .replace(f"Version: {metadata.version(name)}", f"Version: {version}", 1)
        )
        info.unlink()
        info.mkdir()
        (info / "METADATA").write_text(changed, encoding="utf-8")
    source = str(Path(__file__).resolve().parents[2])
    return os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{folder}", "COLUMNS": "250", "PYTHONSAFEPATH": "1"}


def gtr(environment: dict[str, str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from gtr_agents.entry import main; main()"
    command = [sys.executable, "-S", "-c", code, *arguments]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def line(printed: str, subject: str) -> str:
    return next(line for line in printed.splitlines() if line.startswith(subject))


def test_the_same_packages_in_another_folder_are_enough(tmp_path: Path) -> None:
    done = gtr(machine(tmp_path / "packages"), "doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Everything that is needed is there." in done.stdout


def test_a_machine_without_torch(tmp_path: Path) -> None:
    environment = machine(tmp_path / "packages", without=("torch",))
    done = gtr(environment, "doctor", cwd=tmp_path)
    assert done.returncode == 1
    assert "not installed" in line(done.stdout, "torch")
    assert 'Run: pip install "gtr-suite[agents]"' in line(done.stdout, "torch")
    assert "unknown without torch" in line(done.stdout, "accelerator")
    done = gtr(environment, "train", "tiny-points24", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Training needs the package 'torch', which is not installed. Run: pip install" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_machine_with_an_old_transformers(tmp_path: Path) -> None:
    environment = machine(tmp_path / "packages", other={"transformers": "4.57.1"})
    done = gtr(environment, "doctor", cwd=tmp_path)
    assert done.returncode == 1
    assert "4.57.1 is too old" in line(done.stdout, "transformers")
    assert 'Run: pip install "transformers<6,>=5"' in line(done.stdout, "transformers")
    done = gtr(environment, "train", "tiny-points24", cwd=tmp_path)
    assert done.returncode == 2
    assert 'transformers<6,>=5 is needed, got 4.57.1. Run: pip install "transformers<6,>=5"' in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_newer_package_is_told_and_tried(tmp_path: Path) -> None:
    environment = machine(tmp_path / "packages", other={"transformers": "7.0.0"})
    done = gtr(environment, "doctor", cwd=tmp_path)
    assert done.returncode == 0
    assert "7.0.0 is not tried" in line(done.stdout, "transformers")


def test_a_machine_without_an_extra(tmp_path: Path) -> None:
    environment = machine(tmp_path / "packages", without=("minari",))
    done = gtr(environment, "doctor", cwd=tmp_path)
    assert done.returncode == 0
    assert 'pip install "gtr-suite[datasets]"' in line(done.stdout, "extra datasets")


def test_an_import_that_an_old_package_breaks_is_explained(tmp_path: Path) -> None:
    """An old transformers lacks names that are imported; Python alone would say no more than that."""
    environment = machine(tmp_path / "packages", without=("transformers",), other={})
    package = tmp_path / "packages" / "transformers"
    package.mkdir()
    (package / "__init__.py").write_text("")
    info = tmp_path / "packages" / "transformers-4.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 4.0.0\n")
    done = gtr(environment, "train", "tiny-points24", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "transformers<6,>=5 is needed, got 4.0.0" in done.stderr


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12 - 10**8, 10**8))
    assert found("runs folder").state == State.MISSING
    assert "0.1 GB free" in found("runs folder").detail
    assert "--out" in found("runs folder").remedy
    with pytest.raises(SystemExit):
        main(["doctor"])


def test_a_small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10**6}[name])
    finding = found("memory")
    assert (finding.state, "--set rollout.n_envs" in finding.remedy) == (State.OPTIONAL, True)


def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    finding = found("accelerator")
    assert "built without CUDA" in finding.detail
    assert "pip install --force-reinstall torch" in finding.remedy
