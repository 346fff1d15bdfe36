"""Does our ``mergekit`` dialect, and the configuration that ``gtr merge`` exports, give what mergekit itself gives?

    python benchmarks/mergekit_parity.py    # seconds; needs mergekit beside the extra `agents`

mergekit (LGPL-3.0) is called and compared, and is no dependency: pip install mergekit.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from gtr_agents.merging import ShardedState, merge
from gtr_agents.merging.merge_files import FileMerge, Recipe
from gtr_agents.merging.mergekit_config import mergekit_yaml

DATA = Path("docs/results_data/merging/mergekit.json")
TOLERANCE = 1e-6
SHAPES = ((), (1,), (2,), (7,), (64, 48), (1000,), (3, 5, 7))
DENSITIES = (1.0, 0.8, 0.5, 0.2, 0.01)
WEIGHTS = ((1.0,), (0.5, 0.5), (0.9, 0.05, 0.05), (1.0, 1.0, 1.0, 1.0), (0.0, 2.0, 1.0))
RECIPES = (
    Recipe("ties"),
    Recipe("ties", (1.0, 2.0, 3.0), 0.5, 0.7),
    Recipe("ties", dialect="mergekit"),
    Recipe("linear", (1.0, 2.0, 3.0)),
    Recipe("linear", lam=0.5),
)
"""What is exported and merged from files by both; DARE's masks cannot agree."""


def draw(shape: Sequence[int], n: int, kind: str, generator: torch.Generator) -> list[Tensor]:
    """Draw a base and n checkpoints: ``plain`` normal numbers, or ``zeros`` with many, and opposites that tie."""
    base, *vectors = (torch.randn(shape, generator=generator) for _ in range(n + 1))
    if kind == "zeros":
        # On a zero base differences are exact, so opposites do tie.
        base = torch.zeros_like(base)
        vectors = [torch.where(torch.rand(shape, generator=generator) < 0.4, 0.0, v) for v in vectors]
        vectors = [*vectors[:-1], -vectors[0]]
    return [base, *(base + vector for vector in vectors)]


def functions() -> list[dict[str, Any]]:
    """Compare single tensors; one row per kind of input and density with the largest difference.

    Our own dialect is the control: where elections tie it must differ.
    """
    from mergekit.merge_methods import merge_tensors  # type: ignore[import-not-found]

    generator = torch.Generator().manual_seed(0)
    rows = []
    for kind, density in itertools.product(("plain", "zeros"), DENSITIES):
        largest, control, n_entries = 0.0, 0.0, 0
        for shape, weights in itertools.product(SHAPES, WEIGHTS):
            base, *checkpoints = draw(shape, len(weights), kind, generator)
            parameters = {"weight": list(weights), "density": [density] * len(weights), "normalize": True}
            theirs = merge_tensors([base, *checkpoints], "ties", parameters=parameters, base_index=0)
            states = [{"w": tensor} for tensor in checkpoints]
            options = {"weights": weights, "density": density}
            same, ours = (merge({"w": base}, states, **options, dialect=d)["w"] for d in ("mergekit", "ours"))
            largest = max(largest, float((same - theirs).abs().max()))
            control = max(control, float((ours - theirs).abs().max()))
            n_entries += base.numel()
        row = {"inputs": kind, "density": density, "entries": n_entries, "largest_difference": largest}
        rows.append(row | {"largest_difference_of_ours": control})
    return rows


def models(folder: Path, n: int) -> tuple[Path, list[Path]]:
    """Write a tiny random causal language model and n neighbours of it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes))
        model.save_pretrained(folder / "base")
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for number in range(1, n + 1):
            model.load_state_dict({name: t + 0.02 * torch.randn_like(t) for name, t in start.items()})
            model.save_pretrained(folder / f"c{number}")
    return folder / "base", [folder / f"c{number}" for number in range(1, n + 1)]


def adapters(folder: Path, base: Path, n: int) -> list[Path]:
    """Write n LoRA adapters for a model."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    for number in range(1, n + 1):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(number)
            model = get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0.0, 0.1)
            model.save_pretrained(folder / f"a{number}")
    return [folder / f"a{number}" for number in range(1, n + 1)]


def files() -> list[dict[str, Any]]:
    """Merge the same folders by both, mergekit by the exported configuration; one row per recipe."""
    from mergekit.config import MergeConfiguration  # type: ignore[import-not-found]
    from mergekit.merge import run_merge  # type: ignore[import-not-found]
    from mergekit.options import MergeOptions  # type: ignore[import-not-found]

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base, checkpoints = models(folder, 3)
        cases = [(recipe, checkpoints) for recipe in RECIPES]
        cases += [(Recipe("slerp", (1.0, 3.0)), checkpoints[:2]), (Recipe(), adapters(folder, base, 3))]
        for number, (recipe, sources) in enumerate(cases):
            job = FileMerge(base, sources, recipe)
            document = yaml.safe_load(mergekit_yaml(job))
            job.run(folder / f"ours{number}")
            cache = str(folder / "cache")
            options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True, lora_merge_cache=cache)
            run_merge(MergeConfiguration.model_validate(document), str(folder / f"theirs{number}"), options)
            ours, theirs = ShardedState(folder / f"ours{number}"), ShardedState(folder / f"theirs{number}")
            moved = distance(ours, ShardedState(base))
            row = {"recipe": str(recipe), "of": job.plan.kind, "method": document["merge_method"], "moved": moved}
            rows.append(row | {"largest_difference": distance(ours, theirs)})
    return rows


def distance(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Largest difference of two models of the same tensors."""
    if first.keys() != second.keys():
        raise RuntimeError(f"tensors differ: {sorted(first.keys() ^ second.keys())[:5]}")
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


def main() -> None:
    """Compare, write the data, and fail where they differ."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    versions = {name: importlib.metadata.version(name) for name in ("gtr-suite", "mergekit", "torch", "transformers")}
    data = {"versions": versions, "tolerance": TOLERANCE, "functions": functions(), "files": files()}
    DATA.parent.mkdir(parents=True, exist_ok=True)
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    worst = max(row["largest_difference"] for part in ("functions", "files") for row in data[part])
    if worst > TOLERANCE:
        raise SystemExit(f"differs by {worst:.3g}, see {DATA}")


if __name__ == "__main__":
    main()
