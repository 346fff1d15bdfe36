"""What speed is measured against does the same as ours, and the page says what the raw data say."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.no_cover  # whole runs: what they pass through is measured elsewhere

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs" / "results_data" / "rollouts"
SMALL = ["policy.max_new_tokens=8"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the script."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return runpy.run_path(str(ROOT / "benchmarks" / "rollout_speed.py"))


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import stopwatch as module  # type: ignore[import-not-found]  # a script beside the packages

    return module


def test_the_second_pass_of_the_reference_scores_what_our_only_pass_recorded(script: dict[str, Any]) -> None:
    other = script["reference"](None, SMALL)
    prompt = other.collect(1)[0].steps[0].prompt
    with torch.no_grad():
        torch.nn.init.ones_(other.policy.value_head.net[-1].weight)  # a new head says 0 to everything
        response = other.policy.act([prompt], generator=torch.Generator().manual_seed(0))[0]
        log_probs, value = other.score(prompt, torch.from_numpy(response.token_ids))
    np.testing.assert_allclose(log_probs.numpy(), response.log_probs, atol=1e-5)
    assert float(value) == pytest.approx(response.value, rel=1e-4)


def test_the_reference_has_our_loss(script: dict[str, Any]) -> None:
    other = script["reference"](None, SMALL)
    player = script["ours"](None, 1, 3, SMALL)
    parts = other.collect(3)
    steps = [step for part in parts for step in part.steps]
    for step in steps:
        loss = other.loss(step, 0.5, 1.0)
        batch = script["update_module"].make_batch([step], np.array([0.5]), np.array([1.0]), torch.device("cpu"))
        expected, _ = player.losses(batch)
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_the_reference_makes_an_optimizer_step_after_every_minibatch_only(script: dict[str, Any]) -> None:
    other = script["reference"](None, [*SMALL, "ppo.minibatch_size=3"])
    weight = list(other.policy.value_head.parameters())[-1]  # equal rewards leave the model itself alone
    before = weight.detach().clone()
    other.update(other.collect(2))
    assert torch.equal(weight, before)
    other.update(other.collect(1))
    assert not torch.equal(weight, before)


def test_both_play_and_train_in_every_round(script: dict[str, Any]) -> None:
    data = script["measure"](None, 1, 2, (1, 2), SMALL)
    row = data["rounds"][0]
    assert set(row) == {"reference", "1", "2"}
    assert row["reference"]["steps"] == 2
    assert row["2"]["steps"] == script["n_steps_of"](2)
    assert all(side["collect"]["cpu"] > 0 for side in row.values())
    assert row["2"]["update"]["wall"] > 0


def test_ratios_are_of_the_times_of_one_step(script: dict[str, Any]) -> None:
    slow = {"steps": 10, "collect": {"cpu": 10.0}, "update": {"cpu": 5.0}}
    fast = {"steps": 100, "collect": {"cpu": 10.0}, "update": {"cpu": 20.0}}
    data = {"n_envs": [4, 8], "rounds": [{"reference": slow, "4": {**fast, "steps": 50}, "8": fast}]}
    assert script["ratios"](data, 4, "cpu", 0) == [pytest.approx(1.0 / 0.2)]
    assert script["ratios"](data, 8, "cpu", 0) == [pytest.approx(1.0 / 0.1)]
    assert script["ratios"](data, 8, "cpu", 4) == [pytest.approx((1.0 + 4 * 0.5) / (0.1 + 4 * 0.2))]


def test_the_profile_tells_all_parts(script: dict[str, Any]) -> None:
    data = script["profile"](None, 1, 2, SMALL)
    row = data["rounds"][0]
    assert row["collect"]["tokens"] <= row["collect"]["tokens_computed"] == 8 * row["steps"]
    assert 0 < row["collect"]["floor"] < sum(row["collect"]["parts"].values())
    assert 0 < row["update"]["floor"] < sum(row["update"]["parts"].values())
    assert {"text model", "picture model"} < set(row["collect"]["parts"])
    assert {"backward", "model, forward"} < set(row["update"]["parts"])


def test_the_time_of_a_part_is_not_that_of_its_caller(stopwatch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(stopwatch.time, "process_time", lambda: now[0])
    place = SimpleNamespace(inner=lambda: pass_time(3.0))
    place.outer = lambda: (pass_time(1.0), place.inner(), pass_time(0.5))
    original = place.outer
    watch = stopwatch.Stopwatch()
    with watch.watching([(place, "outer", "outer"), (place, "inner", "inner")]):
        place.outer()
    assert dict(watch.seconds) == {"outer": 1.5, "inner": 3.0}
    assert dict(watch.calls) == {"outer": 1, "inner": 1}
    assert place.outer is original


def test_the_floor_counts_products_forward_and_backward(stopwatch: Any) -> None:
    weight = torch.ones(3, 2, requires_grad=True)
    with stopwatch.BareArithmetic() as floor:
        (torch.ones(4, 3, requires_grad=True) @ weight).relu().sum().backward()
    assert floor.calls == 3  # one product forward, two backward
    assert floor.seconds > 0


def test_the_page_shows_the_raw_data_of_the_rollouts(script: dict[str, Any]) -> None:
    assert script["report"](DATA) in (ROOT / "docs" / "benchmarks.md").read_text()
