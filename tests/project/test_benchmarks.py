"""The benchmark page says what the raw data say."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs" / "results_data" / "environments"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The names of the script."""
    return runpy.run_path(str(ROOT / "benchmarks" / "environments.py"))


def test_the_page_shows_the_raw_data(script: dict[str, Any]) -> None:
    assert script["report"](DATA) in (ROOT / "docs" / "benchmarks.md").read_text()


def test_neither_torch_nor_pygame_comes_with_the_package(script: dict[str, Any]) -> None:
    assert script["measure_imports"](1)["loaded"] == []


def test_a_block_counts_the_steps_of_all_games(script: dict[str, Any]) -> None:
    n_steps, spent = script["batch"]("vector_entry_point", 3, 64, legal=True)()
    assert n_steps == 3 * script["N_CALLS"]
    assert spent > 0
    case = script["Case"]("vectors", "three", (3, 64, 64, 3), lambda: (12, 0.6))
    measured = script["measure_case"](case, 0.01)
    assert measured["steps_per_second"] == pytest.approx(20)
    assert measured["ratio"] == pytest.approx(0.15 / measured["copy_seconds"], rel=0.5)


def test_only_what_lies_between_the_markers_is_replaced(script: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{script['BEGIN']}\nold\n{script['END']}\nafter\n")
    for _ in range(2):
        script["write_page"](page, "new")
    assert page.read_text() == f"before\n{script['BEGIN']}\n\nnew\n\n{script['END']}\nafter\n"


def test_every_case_has_all_its_rounds() -> None:
    rows = json.loads((DATA / "speed.json").read_text())
    assert len({(row["table"], row["name"]) for row in rows}) == len(rows)
    assert len({len(row["rounds"]) for row in rows}) == 1


@pytest.mark.alfworld
def test_the_page_shows_the_raw_data_of_alfworld(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("textworld")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = runpy.run_path(str(ROOT / "benchmarks" / "alfworld_engine.py"))
    assert script["report"](DATA.parent / "alfworld") in (ROOT / "docs" / "benchmarks.md").read_text()


def test_every_game_of_alfworld_was_accepted_and_won() -> None:
    played = json.loads((DATA.parent / "alfworld" / "games.json").read_text())["games"]
    assert len({game["game"] for game in played}) == len(played) == 1000
    assert {game["game"].split("/")[1] for game in played} == {"train", "valid_seen", "valid_unseen"}
    assert all(game["accepted"] and game["won"] and not game["done_at_once"] for game in played)
