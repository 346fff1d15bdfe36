"""Which public libraries keep which law of merging (gtr_agents.merging.testing).

    python benchmarks/merging_laws.py run    # judges what is installed, seconds
    python benchmarks/merging_laws.py table  # the tables of docs/merging.md from the data again

peft is installed with the extra ``agents``. mergekit is judged only if it can be imported; it is no dependency.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from environments import markdown, write_page
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import merge_utils, set_peft_model_state_dict
from torch import Tensor, nn

from gtr_agents.merging import StreamingLinear, StreamingTies, merge
from gtr_agents.merging.lora import LoraDeltas, ZeroState
from gtr_agents.merging.testing import Verdict, judge_lora, judge_merge, judge_streaming

DATA = Path("docs/results_data/merging/laws.json")
PAGE = Path("docs/merging.md")
MARKS = ("<!-- laws: begin -->", "<!-- laws: end -->")
PREFIX = "base_model.model."
COMBINATIONS = ("ties", "ties_svd", "linear", "cat", "svd")
"""What peft's add_weighted_adapter offers and the table shows."""


# --- merges of task vectors


def ours(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    """The TIES of this package."""
    base = {"w": torch.zeros_like(vectors[0])} if vectors else {}
    return merge(base, [{"w": vector} for vector in vectors], weights=weights, density=density)["w"]


def peft_ties(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    """The function behind peft's ``ties``, on task vectors."""
    return merge_utils.ties(list(vectors), torch.tensor(weights, dtype=torch.float64), density)


def mergekit_ties() -> Callable[..., Tensor]:
    """Build TIES from mergekit's own trim and election; lengths are checked here, the average is plain.

    Raises:
        ImportError: If mergekit is not installed.
    """
    from mergekit.merge_methods.generalized_task_arithmetic import get_mask  # type: ignore[import-not-found]
    from mergekit.sparsify import SparsificationMethod, sparsify  # type: ignore[import-not-found]

    def ties(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
        trimmed = [sparsify(vector, density, SparsificationMethod.magnitude) for vector in vectors]
        pairs = [weight * vector for weight, vector in zip(weights, trimmed, strict=True)]
        agrees = get_mask(torch.stack(pairs), method="sum")
        mass = sum(weight * mask for weight, mask in zip(weights, agrees, strict=True))
        total = sum(pair * mask for pair, mask in zip(pairs, agrees, strict=True))
        return torch.where(mass > 0, total / mass, torch.zeros_like(total))

    return ties


# --- merges of adapters


def our_lora(
    adapters: Sequence[Mapping[str, Tensor]], config: Mapping[str, Any], weights: Sequence[float], density: float
) -> dict[str, Tensor]:
    """The merge of products of this package."""
    vectors = [LoraDeltas(adapter, config) for adapter in adapters]
    return merge(ZeroState(vectors[0]), vectors, weights=weights, density=density)


def peft_lora(
    adapters: Sequence[Mapping[str, Tensor]],
    config: Mapping[str, Any],
    weights: Sequence[float],
    density: float,
    *,
    combination: str,
) -> dict[str, Tensor]:
    """One of the ways of peft's ``add_weighted_adapter``."""
    shapes = {
        key.removeprefix(PREFIX).partition(".")[0]: t.shape[0] for key, t in adapters[0].items() if "lora_B" in key
    }
    inputs = {
        key.removeprefix(PREFIX).partition(".")[0]: t.shape[1] for key, t in adapters[0].items() if "lora_A" in key
    }
    base = nn.ModuleDict({name: nn.Linear(inputs[name], rows, bias=False) for name, rows in shapes.items()}).double()
    names = [f"adapter-{number}" for number in range(len(adapters))]
    model = get_peft_model(base, LoraConfig(**config), adapter_name=names[0])  # type: ignore[arg-type]
    for name in names[1:]:
        model.add_adapter(name, LoraConfig(**config))
    for name, adapter in zip(names, adapters, strict=True):
        if unexpected := set_peft_model_state_dict(model, dict(adapter), name).unexpected_keys:
            raise RuntimeError(f"peft has no place for {unexpected}")  # a fault of this script, not a refusal
    options = {"density": density} if "ties" in combination else {}
    model.add_weighted_adapter(names, list(weights), "merged", combination_type=combination, **options)
    return {
        f"{name.removeprefix(PREFIX)}.weight": module.get_delta_weight("merged").detach()
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


# --- judging


def judge() -> dict[str, dict[str, list[Verdict]]]:
    """Judge all that is installed; kind of interface to library to verdicts."""
    merges: dict[str, Callable[..., Tensor]] = {"gtr-suite `ties`": ours, "peft `merge_utils.ties`": peft_ties}
    try:
        merges["mergekit `ties`"] = mergekit_ties()
    except ImportError:
        sys.stderr.write("mergekit is not installed and is left out\n")
    adapters: dict[str, Callable[..., dict[str, Tensor]]] = {"gtr-suite `LoraDeltas`": our_lora}
    for combination in COMBINATIONS:
        adapters[f"peft `{combination}`"] = functools.partial(peft_lora, combination=combination)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        streams = {
            f"gtr-suite `{kind.__name__}`": judge_streaming(
                kind,
                functools.partial(_batch, method=kind.method),
                Path(folder) / kind.method,
                save=kind.save,
                load=lambda saved, base, kind=kind: kind.load(saved, base),  # type: ignore[misc]
            )
            for kind in (StreamingTies, StreamingLinear)
        }
        return {
            "merges": {name: judge_merge(function) for name, function in merges.items()},
            "adapters": {name: judge_lora(function, tolerance=1e-5) for name, function in adapters.items()},
            "streams": streams,
        }


def _batch(base: Any, checkpoints: Any, weights: Any, method: str) -> dict[str, Tensor]:
    return merge(base, checkpoints, weights=weights, method=method)


def run() -> None:
    """Judge, and write the data."""
    packages = [name for name in ("gtr-suite", "torch", "peft", "mergekit") if _installed(name)]
    data = {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "verdicts": {
            kind: {
                library: {verdict.law: verdict.message for verdict in verdicts} for library, verdicts in group.items()
            }
            for kind, group in judge().items()
        },
    }
    DATA.parent.mkdir(parents=True, exist_ok=True)
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def tables(data: dict[str, Any]) -> str:
    """One table a kind of interface: laws by libraries."""
    titles = {"merges": "Task vectors", "adapters": "LoRA adapters", "streams": "Streams"}
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    parts = [f"{versions}."]
    for kind, title in titles.items():
        libraries = data["verdicts"][kind]
        laws = next(iter(libraries.values()))
        rows = [[law, *("broken" if verdicts[law] else "holds" for verdicts in libraries.values())] for law in laws]
        parts += [f"### {title}", markdown(["law", *libraries], rows)]
    return "\n\n".join(parts)


def main() -> None:
    """Run or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    if parser.parse_args().what == "run":
        run()
    write_page(PAGE, tables(json.loads(DATA.read_text(encoding="utf-8"))), MARKS)


if __name__ == "__main__":
    main()
