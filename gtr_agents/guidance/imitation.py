"""The aggregated dataset of thoughts to imitate (DAgger): small in memory, exact after a restart."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gtr_agents.errors import CheckpointError, ConfigError
from gtr_agents.types import BoolArray, Image, IntArray, Prompt

_FILE, _TEXTS = "imitation.safetensors", "imitation.json"


@dataclass(frozen=True, slots=True, eq=False)
class Imitation:
    """One answer to imitate."""

    prompt: Prompt
    """What the model is shown."""
    token_ids: IntArray
    """The answer's tokens, int64 [T]."""
    mask: BoolArray
    """True marks a token that is trained, bool [T]."""


@dataclass(frozen=True, slots=True, eq=False)
class _Record:
    """A sample as it is kept: the picture by its hash, ids in 32 bits."""

    image: str
    text: str
    system: str
    token_ids: np.ndarray[tuple[int], np.dtype[np.int32]]
    mask: BoolArray
    update: int


class ImitationSet:
    """Thoughts to imitate from the whole run.

    Pictures are kept once each, as PNG (lossless); token ids are ragged: no fixed length that could overflow.

    Args:
        max_size: The oldest samples beyond so many are dropped; None keeps all.
        max_age: Samples older than so many updates are dropped; None keeps all.
        half_life: A sample's chance to be drawn halves with every so many updates of age; None draws uniformly.

    Raises:
        ConfigError: If one of them is not above 0.
    """

    def __init__(self, max_size: int | None = None, max_age: int | None = None, half_life: float | None = None) -> None:
        for name, value in (("max_size", max_size), ("max_age", max_age), ("half_life", half_life)):
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0, or null for no limit, got {value!r}")
        self.max_size = max_size
        self.max_age = max_age
        self.half_life = half_life
        self._records: list[_Record] = []
        self._images: dict[str, bytes] = {}
        self._update = 0

    def __len__(self) -> int:
        """Number of samples, those of the present update included."""
        return len(self._records)

    @property
    def n_bytes(self) -> int:
        """Memory of pictures and tokens in bytes."""
        return sum(map(len, self._images.values())) + sum(r.token_ids.nbytes + r.mask.nbytes for r in self._records)

    def extend(self, samples: Iterable[Imitation]) -> None:
        """Add the samples of the present update, instead of those that an unfinished attempt at it may have added.

        Args:
            samples: What the teacher said; their pictures are compressed here.
        """
        self._keep([record for record in self._records if record.update < self._update])
        for sample in samples:
            prompt = sample.prompt
            ids = sample.token_ids.astype(np.int32)
            record = _Record(
                self._store(prompt.image), prompt.text, prompt.system, ids, sample.mask.copy(), self._update
            )
            self._records.append(record)

    def commit(self) -> None:
        """The present update is complete: drop what is too old or too much, and begin the next one."""
        self._update += 1
        kept = self._records
        if self.max_age is not None:
            kept = [record for record in kept if self._update - record.update <= self.max_age]
        if self.max_size is not None:
            kept = kept[-self.max_size :]
        self._keep(kept)

    def draw(self, n: int, rng: np.random.Generator) -> list[Imitation]:
        """Draw samples without replacement.

        Args:
            n: How many; all of them, in random order, if there are not so many.
            rng: Source of randomness.

        Returns:
            The samples, each with a prompt of its own.
        """
        n = min(n, len(self._records))
        chances = None
        if self.half_life is not None and n:
            ages = self._update - np.array([record.update for record in self._records])
            chances = 0.5 ** (ages / self.half_life)
            chances /= chances.sum()
        if n == 0:
            return []
        chosen = rng.choice(len(self._records), size=n, replace=False, p=chances)
        return [self._sample(self._records[index]) for index in chosen]

    def save(self, folder: Path) -> None:
        """Write everything to a folder: tensors as safetensors, texts as JSON."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        names = list(self._images)
        position = {name: index for index, name in enumerate(names)}
        records = self._records
        tensors: dict[str, np.ndarray[Any, Any]] = {
            "images": np.frombuffer(b"".join(self._images.values()), np.uint8).copy(),
            "image_ends": np.cumsum([len(self._images[name]) for name in names], dtype=np.int64),
            "image": np.array([position[record.image] for record in records], np.int64),
            "token_ids": np.concatenate([np.zeros(0, np.int32), *(record.token_ids for record in records)]),
            "mask": np.concatenate([np.zeros(0, np.uint8), *(record.mask.astype(np.uint8) for record in records)]),
            "ends": np.cumsum([len(record.token_ids) for record in records], dtype=np.int64),
            "update": np.array([record.update for record in records], np.int64),
        }
        save_file(tensors, str(folder / _FILE))
        texts = {"update": self._update, "prompts": [[record.system, record.text] for record in records]}
        (folder / _TEXTS).write_text(json.dumps(texts) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Take back what :meth:`save` wrote.

        Raises:
            CheckpointError: If a file is missing or the two do not belong together.
        """
        from safetensors.numpy import load_file

        missing = [name for name in (_FILE, _TEXTS) if not (folder / name).is_file()]
        if missing:
            raise CheckpointError(f"The dataset of thoughts in {folder} is incomplete: {', '.join(missing)} missing.")
        tensors = load_file(str(folder / _FILE))
        texts = json.loads((folder / _TEXTS).read_text(encoding="utf-8"))
        if len(texts["prompts"]) != len(tensors["ends"]):
            raise CheckpointError(
                f"The dataset of thoughts in {folder} is damaged: {len(texts['prompts'])} prompts for "
                f"{len(tensors['ends'])} answers."
            )
        pictures = [part.tobytes() for part in np.split(tensors["images"], tensors["image_ends"][:-1])]
        names = [_name(picture) for picture in pictures]
        self._images = dict(zip(names, pictures, strict=True)) if len(tensors["image_ends"]) else {}
        ids = np.split(tensors["token_ids"], tensors["ends"][:-1])
        masks = np.split(tensors["mask"].astype(np.bool_), tensors["ends"][:-1])
        self._records = [
            _Record(names[image], text, system, token_ids, mask, int(update))
            for image, (system, text), token_ids, mask, update in zip(
                tensors["image"], texts["prompts"], ids, masks, tensors["update"], strict=False
            )
        ]
        self._update = int(texts["update"])

    def _keep(self, records: list[_Record]) -> None:
        self._records = records
        used = {record.image for record in records}
        self._images = {name: picture for name, picture in self._images.items() if name in used}

    def _store(self, image: Image) -> str:
        import PIL.Image

        buffer = io.BytesIO()
        PIL.Image.fromarray(image).save(buffer, "PNG", compress_level=1)
        picture = buffer.getvalue()
        name = _name(picture)
        self._images[name] = picture
        return name

    def _sample(self, record: _Record) -> Imitation:
        import PIL.Image

        image = np.array(PIL.Image.open(io.BytesIO(self._images[record.image])))
        prompt = Prompt(record.text, image, record.system)
        return Imitation(prompt, record.token_ids.astype(np.int64), record.mask)


def _name(picture: bytes) -> str:
    return hashlib.sha256(picture).hexdigest()
