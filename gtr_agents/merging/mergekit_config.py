"""Writes a merge as a configuration for mergekit, and says in it where mergekit computes something else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gtr_agents.errors import MergeError
from gtr_agents.merging.merge_files import FileMerge, Recipe

TIES_DIFFERS = (
    "Entries whose signs are undecided get the positive side, not 0.",
    "Of equal magnitudes at the threshold as many are kept as fit, not all.",
)
SMALL_DIFFERENCES = "Checkpoints are read in float32 as here; sums may round differently."
DARE_DIFFERS = (
    "Which entries are dropped is drawn from another generator.",
    "What is kept is scaled to the old sum of magnitudes, not by 1 / density; equal in expectation only.",
)
LINEAR_DIFFERS = ("Whole weights are averaged, not differences to the base: the same up to rounding.",)
ARITHMETIC_DIFFERS = ("Nothing but rounding: task_arithmetic with normalize is the weighted mean times lambda.",)
SLERP_DIFFERS = ("Nearly parallel task vectors (cosine above 0.9995) go along the arc, not the chord.",)


def mergekit_yaml(merge: FileMerge) -> str:
    """Return the configuration that comes nearest to a merge, with the differences as comments.

    Args:
        merge: The merge; its paths are written as they were given.

    Returns:
        The text of a YAML file for ``mergekit-yaml``.

    Raises:
        MergeError: If mergekit has nothing like it: an election by frequency, the dialect of another library, or slerp
            with a scale.
    """
    recipe = merge.recipe
    _refuse(recipe)
    method, parameters, differences = _method(recipe)
    adapters = merge.of_adapters
    base = str(merge.base.path)
    document: dict[str, Any] = {
        "merge_method": method,
        "models": [
            {"model": f"{base}+{source.path}" if adapters else str(source.path), "parameters": own}
            for source, own in zip(merge.sources, _per_model(recipe, merge.weights), strict=True)
        ],
    }
    if method != "linear":
        document["base_model"] = base
    document |= {"parameters": parameters, "dtype": "float32", "out_dtype": merge.output_dtype}
    notes = [
        "Made by gtr merge. To repeat the merge: mergekit-yaml THIS_FILE OUTPUT_FOLDER",
        "Where mergekit differs from gtr merge:",
        *(f"- {difference}" for difference in differences),
        *(["- Adapters are merged into copies of the base first, which take its place on disk."] if adapters else []),
        *(["- The result is a model; gtr merge --rank makes an adapter of it."] if merge.rank is not None else []),
    ]
    return "".join(f"# {note}\n" for note in notes) + yaml.safe_dump(document, sort_keys=False)


def write_mergekit_yaml(merge: FileMerge, file: str | Path) -> Path:
    """Write :func:`mergekit_yaml` to a file, which is replaced.

    Returns:
        The file.
    """
    file = Path(file)
    text = mergekit_yaml(merge)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def _refuse(recipe: Recipe) -> None:
    if recipe.dialect not in ("ours", "mergekit"):
        raise MergeError(
            f"mergekit cannot compute the dialect {recipe.dialect!r}; expected 'ours' or 'mergekit' for an export"
        )
    if recipe.election != "total" and recipe.method in ("ties", "dare_ties"):
        raise MergeError(f"mergekit's files elect by total only; expected that election, got {recipe.election!r}")
    if recipe.method == "slerp" and recipe.lam != 1.0:
        raise MergeError(f"mergekit's nuslerp has no scale; expected lam 1 for an export, got {recipe.lam:g}")


def _method(recipe: Recipe) -> tuple[str, dict[str, Any], Sequence[str]]:
    """Return the method there, its shared parameters, and what it does differently."""
    scaled = {"normalize": True, "lambda": recipe.lam}
    if recipe.method == "ties":
        return "ties", scaled, TIES_DIFFERS if recipe.dialect == "ours" else (SMALL_DIFFERENCES,)
    if recipe.method == "dare_ties":
        return "dare_ties", scaled | {"rescale": True}, (*DARE_DIFFERS, TIES_DIFFERS[0])
    if recipe.method == "dare_linear":
        return "dare_linear", scaled | {"rescale": True}, DARE_DIFFERS
    if recipe.method == "slerp":
        return "nuslerp", {"nuslerp_flatten": True, "nuslerp_row_wise": False}, SLERP_DIFFERS
    if recipe.lam == 1.0:
        return "linear", {"normalize": True}, LINEAR_DIFFERS
    return "task_arithmetic", scaled, ARITHMETIC_DIFFERS


def _per_model(recipe: Recipe, weights: Sequence[float]) -> list[dict[str, float]]:
    density = {"density": recipe.density} if recipe.method in ("ties", "dare_ties", "dare_linear") else {}
    return [{"weight": float(weight)} | density for weight in weights]
