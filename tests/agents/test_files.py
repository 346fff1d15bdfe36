"""Folders appear whole or not at all, and damage is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from gtr_agents import resume, train
from gtr_agents.errors import BusyFolderError, CheckpointError
from gtr_agents.files import HASHES, check_folder, publish_folder, sole_writer


def published(parent: Path, text: str = "weights") -> Path:
    """Publish a folder with one file in a subfolder."""
    fresh = parent / "last.tmp"
    (fresh / "teacher").mkdir(parents=True)
    (fresh / "teacher" / "a.txt").write_text(text)
    publish_folder(fresh, parent / "last")
    return parent / "last"


def test_a_published_folder_passes_its_own_check(tmp_path: Path) -> None:
    check_folder(published(tmp_path))


def test_publishing_again_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    published(tmp_path, "old")
    folder = published(tmp_path, "new")
    assert (folder / "teacher" / "a.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    folder = published(tmp_path)
    (folder / "teacher" / "a.txt").write_text("Weights")
    with pytest.raises(CheckpointError, match=r"a\.txt is not the file that was saved"):
        check_folder(folder)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = published(tmp_path)
    (folder / "teacher" / "a.txt").unlink()
    with pytest.raises(CheckpointError, match=r"teacher/a\.txt is missing"):
        check_folder(folder)


def test_a_folder_without_hashes_is_no_checkpoint(tmp_path: Path) -> None:
    folder = published(tmp_path)
    (folder / HASHES).unlink()
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        check_folder(folder)


def test_one_process_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with sole_writer(folder), pytest.raises(BusyFolderError, match="Another process writes to"), sole_writer(folder):
        pass
    with sole_writer(tmp_path / "run"):
        pass


def test_a_process_that_dies_lets_go_of_its_folder(tmp_path: Path) -> None:
    lines = ["import os, sys", "from pathlib import Path", "from gtr_agents.files import sole_writer"]
    lines += ["with sole_writer(Path(sys.argv[1])):", "    print('locked', flush=True)", "    os.read(0, 1)"]
    command = [sys.executable, "-c", "\n".join(lines), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(BusyFolderError), sole_writer(tmp_path):
            pass
        other.kill()
    with sole_writer(tmp_path):
        pass


def test_a_file_system_without_locks_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with sole_writer(tmp_path):
        (tmp_path / "a.txt").write_text("written")


def test_a_run_that_is_being_made_is_neither_resumed_nor_replaced(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"seed": 0, "preset": "tiny-ezpoints", "config": {"env": {"id": "EZPoints-v0"}}}'
    )
    with sole_writer(tmp_path):
        with pytest.raises(BusyFolderError):
            resume(tmp_path, quiet=True)
        with pytest.raises(BusyFolderError):
            train("tiny-ezpoints", out=tmp_path, overwrite=True, quiet=True)
    assert (tmp_path / "config.json").is_file()
