"""The page on merging says what the raw data say, and its scripts measure what they claim."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "merging.md"
DATA = ROOT / "docs" / "results_data" / "merging"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))


def test_the_tables_of_laws_show_the_raw_data(monkeypatch: pytest.MonkeyPatch) -> None:
    data = json.loads((DATA / "laws.json").read_text())
    assert script("merging_laws", monkeypatch)["tables"](data) in PAGE.read_text()


def test_the_laws_that_were_judged_are_those_that_exist() -> None:
    from gtr_agents.merging.testing import LORA_LAWS, MERGE_LAWS, STREAM_LAWS

    verdicts = json.loads((DATA / "laws.json").read_text())["verdicts"]
    laws = {kind: {tuple(group) for group in libraries.values()} for kind, libraries in verdicts.items()}
    expected = {"merges": MERGE_LAWS, "adapters": LORA_LAWS, "streams": [*STREAM_LAWS, "persistence"]}
    assert laws == {kind: {tuple(names)} for kind, names in expected.items()}


def test_what_is_ours_keeps_every_law() -> None:
    verdicts = json.loads((DATA / "laws.json").read_text())["verdicts"]
    for libraries in verdicts.values():
        for library, group in libraries.items():
            if library.startswith("gtr-suite"):
                assert not any(group.values()), library


def test_peft_is_judged_on_adapters_that_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    # Laws that peft breaks are broken by its arithmetic, not by a script that feeds it wrongly.
    judged = script("merging_laws", monkeypatch)
    verdicts = json.loads((DATA / "laws.json").read_text())["verdicts"]["adapters"]
    assert all(not verdicts[f"peft `{combination}`"]["LoRA is itself"] for combination in judged["COMBINATIONS"])
    adapter = {
        "base_model.model.up.lora_A.weight": torch.eye(2, 3),
        "base_model.model.up.lora_B.weight": torch.ones(4, 2),
    }
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["up"]}
    with torch.random.fork_rng(devices=[]):
        merged = judged["peft_lora"]([adapter], config, [1.0], 1.0, combination="cat")
        with pytest.raises(RuntimeError, match="peft has no place for"):
            judged["peft_lora"](
                [{**adapter, "base_model.model.up.other": torch.ones(1)}], config, [1.0], 1.0, combination="cat"
            )
    assert merged["up.weight"].flatten().tolist() == pytest.approx([3.0, 3.0, 0.0] * 4, abs=1e-6)


def test_shapes_are_read_and_made(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = script("merging_speed", monkeypatch)
    assert speed["shapes"]("2x3x4,5x6x1") == [(2, 3, 4), (5, 6, 1)]
    assert speed["n_entries"]("2x3x4,5x6x1") == 54
    made = dict(speed["checkpoint"]("2x3x2", 1))
    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == {
        "layers.0.0.weight": (2, 3),
        "layers.1.0.weight": (2, 3),
    }
    base, again = dict(speed["checkpoint"]("2x3x2", 0)), dict(speed["checkpoint"]("2x3x2", 1))
    assert all(
        bool((tensor != base[name]).any()) and bool((tensor == again[name]).all()) for name, tensor in made.items()
    )


def test_the_tables_of_speed_show_the_raw_data(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = script("merging_speed", monkeypatch)
    begin, end = speed["MARKS"]
    shown = PAGE.read_text().split(begin)[1].split(end)[0]
    assert shown.strip() == speed["report"](DATA)


def test_a_table_of_speed_tells_the_ratios() -> None:
    data = {
        "shapes": "2x3x4",
        "entries": 24_000_000,
        "threads": 1,
        "torch": "2",
        "cores": 2,
        "trims": {"shape": [2, 3], "seconds": {"histogram": 0.002, "argsort": 0.05}},
        "streaming": {
            "add": {"3": 1.0, "100": 1.1},
            "merged": {"3": 0.5, "100": 0.4},
            "peak_bytes": {"3": 2**30, "100": 2**30},
        },
        "argsort": {"seconds": 12.0, "peak_bytes": {"8": 2**31}},
    }
    with pytest.MonkeyPatch.context() as patch:
        text = script("merging_speed", patch)["tables"](data)
    assert "| argsort | 50.0 | 25.0 |" in text
    assert "| streaming, 100 checkpoints | 1.10 | 0.40 | 1.10 | 1024 |" in text
    assert "takes 8.0 times as long" in text


def test_the_page_tells_how_far_mergekit_is_from_us() -> None:
    data = json.loads((DATA / "mergekit.json").read_text())
    for part in ("functions", "files"):
        worst = max(row["largest_difference"] for row in data[part])
        assert worst <= data["tolerance"] == 1e-6
        assert f"<!-- parity: {part} -->{worst:.2g}<!-- end -->" in PAGE.read_text()


def test_the_comparison_with_mergekit_could_have_failed() -> None:
    data = json.loads((DATA / "mergekit.json").read_text())
    control = {kind: [row for row in data["functions"] if row["inputs"] == kind] for kind in ("plain", "zeros")}
    assert all(row["largest_difference_of_ours"] > 1 for row in control["zeros"])  # undecided elections
    assert all(row["largest_difference_of_ours"] < data["tolerance"] for row in control["plain"])
    assert all(row["moved"] > 0.01 for row in data["files"])
    assert {row["method"] for row in data["files"]} == {"ties", "linear", "task_arithmetic", "nuslerp"}
    assert {row["of"] for row in data["files"]} == {"models", "adapters"}


def test_inputs_of_the_comparison_have_zeros_and_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = script("mergekit_parity", monkeypatch)["draw"]
    base, first, _, last = draw((50,), 3, "zeros", torch.Generator().manual_seed(0))
    assert not base.any()
    assert 5 < int((first == 0).sum()) < 45
    assert torch.equal(last, -first)
