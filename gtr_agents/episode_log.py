"""Episodes of an evaluation on disk, one a line, so that an interrupted evaluation goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gtr_agents.errors import EvaluationFolderError
from gtr_agents.files import flush


class EpisodeLog:
    """Records of played episodes, in a file beside what was evaluated, or in memory alone.

    ``NAME.json`` holds the settings, ``NAME.jsonl`` the records in the order in which they were written. Half a line,
    as a crash leaves it, is cut off; so is a part of a batch, if batches are to be whole.

    Args:
        path: The file of records; None keeps them in memory.
        settings: What is evaluated and how, as JSON holds it; a file with other settings is refused.
        batch: Records are kept in batches of so many, the last one may be smaller; 0 keeps every record.
        total: How many records there will be.

    Raises:
        EvaluationFolderError: If the file belongs to another evaluation; the differences are named. If it cannot be
            read.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any], *, batch: int = 0, total: int = 0) -> None:
        self.path = path
        self.records: dict[int, dict[str, Any]] = {}
        """By seed; episodes that failed are not here, so that they are played again."""
        self.errors: dict[int, str] = {}
        """Why episodes failed, by seed; those that were played later are not here."""
        if path is None:
            return
        self._claim(path.with_suffix(".json"), path, settings)
        lines = _whole_lines(path)
        kept = len(lines) if not batch or len(lines) >= total else len(lines) - len(lines) % batch
        if path.exists():
            os.truncate(path, sum(map(len, lines[:kept])))
        for number, line in enumerate(lines[:kept], 1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise EvaluationFolderError(
                    f"Line {number} of {path} is no record of an episode ({error}). Delete the file to play all again."
                ) from error

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append records, durably.

        Args:
            records: Each with ``seed``, and ``error`` if the episode failed.
        """
        for record in records:
            self._take(dict(record))
        if self.path is not None and records:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(record) + "\n" for record in records))
                file.flush()
                os.fsync(file.fileno())

    def _take(self, record: dict[str, Any]) -> None:
        seed = record["seed"]
        if "error" in record:
            self.errors[seed] = record["error"]
        else:
            self.records[seed] = record
            self.errors.pop(seed, None)

    def _claim(self, head: Path, path: Path, settings: Mapping[str, Any]) -> None:
        """Write the settings, or compare them with those that are there."""
        settings = json.loads(json.dumps(settings))
        if head.is_file():
            try:
                found = json.loads(head.read_text(encoding="utf-8"))
            except ValueError as error:
                raise EvaluationFolderError(f"{head} is damaged: {error}. Choose another folder.") from error
            different = list(_differences(found, settings))
            if different:
                raise EvaluationFolderError(
                    f"{path} holds episodes of another evaluation: {'; '.join(different)}. Choose another folder."
                )
            return
        if path.exists():
            raise EvaluationFolderError(f"{path} holds episodes of something unknown: {head} is missing.")
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = head.with_suffix(".tmp")
        fresh.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        flush(fresh)
        fresh.replace(head)
        flush(path.parent)


def _whole_lines(path: Path) -> list[bytes]:
    """The lines of a file that end as lines do."""
    if not path.exists():
        return []
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _differences(found: Any, wanted: Any, name: str = "") -> Iterator[str]:
    """Say what differs between two nested settings, by name."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in {**found, **wanted}:
            yield from _differences(found.get(key), wanted.get(key), f"{name} / {key}" if name else key)
    elif found != wanted:
        yield f"{name} was {found!r}, is {wanted!r}"
