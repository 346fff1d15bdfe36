"""The scripts behind the results run, and the numbers on the pages are those of the raw data."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from gtr_agents.config import load_config

pytestmark = pytest.mark.no_cover  # whole runs: what they pass through is measured elsewhere

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs" / "results_data"


@pytest.fixture(autouse=True)
def scripts_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))


def test_every_ablation_is_a_configuration_of_its_own() -> None:
    ablations = script("ablations")
    configs = [load_config(ablations["PRESET"], sets) for _, sets in ablations["ABLATIONS"].values()]
    assert len({repr(config) for config in configs}) == len(configs)


def test_the_cost_of_guidance_is_measured_by_parts() -> None:
    small = [
        "rollout.hands=2", "rollout.attempts=2", "rollout.n_envs=4", "policy.max_new_tokens=8", "ppo.skip_flat=false",
        "evaluation.episodes=4",
    ]  # fmt: skip
    cost = script("guidance_cost")
    rows = cost["measure"]("tiny-points24", None, 1, small)
    assert set(cost["PARTS"]) | {"steps", "samples"} == set(rows[0])
    assert all(rows[0][part] > 0 for part in cost["PARTS"])


def test_the_page_tells_the_measured_cost_of_guidance() -> None:
    measured = json.loads((DATA / "guidance_cost.json").read_text())
    cost = script("guidance_cost")
    assert cost["summary"](measured["rounds"]) == pytest.approx(measured["summary"])
    page = " ".join((ROOT / "docs" / "benchmarks.md").read_text().split())
    told = measured["summary"]
    assert f"adds {told['kl_adds']:.0%} to plain PPO and imitation {told['sft_adds']:.0%}".replace("%", " %") in page
    for part in ("collect", "score", "think", "update_imitating"):
        assert f"| {told[part]:.1f} |" in page


def test_the_page_tells_the_gains_of_the_households() -> None:
    """Means and intervals of docs/results.md, from the runs' summaries."""
    study = script("study")
    table = study["gains"](study["STUDIES"]["alfworld"])
    page = (ROOT / "docs" / "results.md").read_text()
    for row in table.splitlines()[2:]:
        runs, over_runs, over_episodes = (cell.strip() for cell in row.split("|")[2:5])
        numbers = [*runs.split(", "), over_runs.split()[0], *_ends(over_runs), *_ends(over_episodes)]
        for number in numbers:
            assert f"{100 * float(number):+.1f}" in page, number


def _ends(cell: str) -> list[str]:
    low, _, high = cell.partition("(")[2].rstrip(")").partition(" to ")
    return [low, high]
