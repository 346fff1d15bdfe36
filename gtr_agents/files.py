"""Durable files: hashes, flushing, folders that appear whole or not at all, and who may write to one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gtr_agents.errors import BusyFolderError, CheckpointError

HASHES = "hashes.json"
LOCK = ".lock"
"""File that a process locks while it writes to its folder."""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to a folder inside the context; the system lets go if this one dies.

    Args:
        folder: where to; created if it is not there.

    Raises:
        BusyFolderError: if another process writes there.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyFolderError(
            f"Another process writes to {folder}. Wait until it has ended, or stop it; or choose another folder."
        ) from None
    except NotImplementedError:  # a file system without locks: better unguarded than not at all
        pass
    try:
        yield
    finally:
        lock.release()


def sha256(path: Path) -> str:
    """Hash a file; hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Make a file or folder durable; folders cannot be opened for this on every system."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link_file(source: Path, target: Path) -> None:
    """Give a finished file a second name, or copy it where a hard link cannot be; it must not be changed any more."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def publish_folder(fresh: Path, target: Path) -> None:
    """Give a finished folder its final name: hash and flush its files, then rename; an older one is replaced.

    A crash leaves the old folder under its own name; only between the two renames of a replacement there is none.

    Args:
        fresh: the finished folder, beside the target.
        target: its final name.
    """
    files = sorted(path for path in fresh.rglob("*") if path.is_file())
    hashes = {path.relative_to(fresh).as_posix(): sha256(path) for path in files}
    (fresh / HASHES).write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
    for path in [*files, fresh / HASHES, fresh]:
        flush(path)
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def check_folder(folder: Path) -> None:
    """Check a published folder against its hashes.

    Raises:
        CheckpointError: if the hashes, or a file, are missing, or a file was changed; the file is named.
    """
    record = folder / HASHES
    if not record.is_file():
        raise CheckpointError(f"{folder} is not a complete checkpoint: {HASHES} is missing.")
    try:
        hashes = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{record} is damaged: {error}") from error
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is incomplete: {name} is missing; use another checkpoint.")
        if sha256(folder / name) != expected:
            raise CheckpointError(f"{folder / name} is not the file that was saved (SHA-256 differs).")
