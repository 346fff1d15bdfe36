"""Folders appear whole or not at all, and damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from gtr_agents.errors import CheckpointError
from gtr_agents.files import HASHES, check_folder, publish_folder


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
