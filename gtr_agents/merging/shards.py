"""State dicts on disk: safetensors files read one tensor at a time, and written so that none is held twice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gtr_agents.errors import CheckpointError

INDEX = "model.safetensors.index.json"
"""Where transformers looks up which file holds which tensor."""
WEIGHT_FILES = ("model.safetensors", "adapter_model.safetensors")
"""What transformers and peft call weights that fit into one file."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Names of types in a safetensors header."""


class ShardedState(Mapping[str, Tensor]):
    """The tensors of one safetensors file, or of a folder; each is read when it is asked for, in name order.

    Args:
        path: A file, or a folder as transformers and peft write it. Of a folder those files count that its index names;
            without an index ``model.safetensors`` or ``adapter_model.safetensors``, and without these all of them. They
            must not change any more.

    Raises:
        CheckpointError: If there is no such file, one cannot be read, or two hold a tensor of the same name.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        files = _weight_files(self.path) if self.path.is_dir() else [self.path]
        found: dict[str, Path] = {}
        for file in files:
            for name in _names(file):
                if name in found:
                    raise CheckpointError(f"tensor {name!r} is in {found[name]} and in {file}; remove one of them")
                found[name] = file
        if not found:
            raise CheckpointError(f"expected a safetensors file or a folder of them, got {self.path}")
        self._files = dict(sorted(found.items()))

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._files[name], framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def outline(self, name: str) -> Tensor:
        """Return shape and type of a tensor as an empty one on the device ``meta``; its data are not read.

        Raises:
            CheckpointError: If its type cannot be merged (8-bit floats and the like).
        """
        with safe_open(self._files[name], framework="pt") as file:
            part = file.get_slice(name)
            kind, shape = part.get_dtype(), part.get_shape()
        if kind not in DTYPES:
            raise CheckpointError(
                f"{self._files[name]}: {name!r} has type {kind}, expected one of {', '.join(DTYPES)}; quantised "
                "weights cannot be merged, take the weights before quantisation"
            )
        return torch.empty(shape, dtype=DTYPES[kind], device="meta")

    def __contains__(self, name: object) -> bool:
        return name in self._files  # a mapping's own way would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _weight_files(folder: Path) -> list[Path]:
    """Return the files of a folder that hold its weights: a value head or other shards may lie beside them."""
    index = folder / INDEX
    if index.is_file():
        try:
            places = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{index} is not readable as an index of shards: {error!r}; get it again") from error
        files = [folder / place for place in sorted(places)]
        if missing := [file.name for file in files if not file.is_file()]:
            raise CheckpointError(f"{folder} lacks {missing[:3]}, which its index names; get the missing files")
        return files
    whole = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    return whole[:1] or sorted(folder.glob("*.safetensors"))


def _names(file: Path) -> list[str]:
    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read as a safetensors file: {error}") from error


def write_shards(folder: str | Path, tensors: Iterable[tuple[str, Tensor]], shard_bytes: int = 2 << 30) -> Path:
    """Write tensors as they come, in files of bounded size with transformers' index; memory is that of one file.

    Args:
        folder: Created if need be; must hold no safetensors file yet.
        tensors: Names and tensors, e.g. :meth:`StreamingTies.merged_tensors`.
        shard_bytes: A file is closed once it holds so many bytes.

    Returns:
        The folder.

    Raises:
        CheckpointError: If the folder holds safetensors files already.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("*.safetensors")):
        raise CheckpointError(f"{folder} holds safetensors files already; choose another folder")
    places: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    total = size = 0

    def close() -> None:
        file = f"model-{len(set(places.values())) + 1:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, file))
        shard.clear()

    for name, tensor in tensors:
        shard[name] = tensor.detach().contiguous()
        size += tensor.nbytes
        total += tensor.nbytes
        if size >= shard_bytes:
            close()
            size = 0
    if shard:
        close()
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return folder


def map_new_file(path: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Create a safetensors file of zeros and map it: what is written to the tensors is written to the file.

    Args:
        path: The file; replaced if it exists.
        like: Names and the shapes and types (float32 or float64) that the tensors get.

    Returns:
        Tensors in the file's memory; flush the file when they are complete.
    """
    names = {dtype: code for code, dtype in DTYPES.items()}
    entries, end = {}, 0
    for name, tensor in like.items():
        begin, end = end, end + tensor.nbytes
        entries[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)  # the format wants aligned data, and so do views of the mapped bytes
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    data = torch.from_file(str(path), shared=True, size=8 + len(header) + end, dtype=torch.uint8)[8 + len(header) :]
    pieces = data.split([tensor.nbytes for tensor in like.values()])
    return {
        name: piece.view(tensor.dtype).reshape(tensor.shape)
        for (name, tensor), piece in zip(like.items(), pieces, strict=True)
    }
