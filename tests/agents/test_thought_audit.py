"""The audit of thoughts: asked for at every step, counted in the metrics, kept with the episode."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_run import finished_run, record
from small_models import CountingEnv, ScriptedActor, text_env

from gtr_agents.diagnostics import trajectory_metrics
from gtr_agents.parsing import parse_answer
from gtr_agents.prompts import get_template
from gtr_agents.report import build_report
from gtr_agents.rollout import RolloutCollector
from gtr_agents.types import Prompt, Response, Trajectory
from gtr_envs.cards.thoughts import Finding


class Writer:
    """Writes given answers, one after the other."""

    template = get_template("paper")

    def __init__(self, *answers: dict[str, Any] | str) -> None:
        self.answers = [answer if isinstance(answer, str) else json.dumps(answer) for answer in answers]

    def act(self, prompts: Sequence[Prompt], *, generator: object = None) -> list[Response]:
        del generator
        [_] = prompts
        ids, log_probs = np.array([1], np.int64), np.array([-0.5], np.float32)
        text = self.answers.pop(0)
        answer = parse_answer(text, self.template.required_keys)
        return [Response(text, answer, ids, ids, log_probs, log_probs, np.array([True]), value=0.0)]

    def predict_values(self, prompts: Sequence[Prompt]) -> list[float]:
        return [0.0 for _ in prompts]


def answer(action: str, thoughts: str = "8/(3-8/3) is 24", formula: str = "", cards: object = None) -> dict[str, Any]:
    return {"cards": cards or [8, 3, 8, 3], "formula": formula, "thoughts": thoughts, "action": action}


def episode_of(*answers: dict[str, Any] | str) -> Trajectory:
    make = lambda: Dealt(text_env())  # noqa: E731
    return RolloutCollector(make, 1).play_episodes(Writer(*answers), [0]).trajectories[0]


class Dealt:
    """An environment that always deals 8 3 8 3."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, *, seed: int) -> Any:
        return self._env.reset(seed=seed, options={"numbers": [8, 3, 8, 3]})


def test_every_step_is_audited_in_the_state_it_answered() -> None:
    steps = episode_of(
        answer("8"),
        answer("/", formula="8", cards=[8, 3, 8, 4]),
        answer("(", formula="3"),
        answer("3", formula="8/(", thoughts="8/(3+8/3) is 24"),
        answer("+", formula="8/(3"),
        answer("8", formula="8/(3+"),
        "I do not know",
        answer("="),
    ).steps
    assert [step.finding for step in steps] == [
        Finding.CORRECT,
        Finding.MISREAD_CARD,
        Finding.WRONG_FORMULA,
        Finding.WRONG_ARITHMETIC,
        Finding.WRONG_ACTION,
        Finding.HOPELESS,
        Finding.HOPELESS,
        Finding.HOPELESS,
    ]


@pytest.mark.parametrize("cards", ["8, 3, 8, 3", 8, {"a": 1}, [[8], 3, 8, 3]])
def test_cards_of_any_shape_are_misread_and_never_an_error(cards: Any) -> None:
    assert episode_of(answer("=", cards=cards)).steps[0].finding is Finding.MISREAD_CARD


@pytest.mark.parametrize("formula", [["8"], 8, {"8": "/"}])
def test_a_formula_of_any_shape_is_wrong_and_never_an_error(formula: Any) -> None:
    assert episode_of(answer("=", formula=formula)).steps[0].finding is Finding.WRONG_FORMULA


def test_the_shares_of_all_findings_are_metrics_and_sum_to_one() -> None:
    metrics = trajectory_metrics([episode_of(answer("8"), answer("=", formula="8"))])
    shares = {name: value for name, value in metrics.items() if name.startswith("audit_")}
    assert shares == pytest.approx(
        {f"audit_{finding.name.lower()}": 0.0 for finding in Finding}
        | {"audit_correct": 0.5, "audit_wrong_action": 0.5}
    )


def test_where_nothing_is_audited_nothing_is_counted() -> None:
    collector = RolloutCollector(CountingEnv, 1)
    trajectory = collector.play_episodes(ScriptedActor(lambda _: "stop"), [0]).trajectories[0]
    assert trajectory.steps[0].finding is None
    assert not [name for name in trajectory_metrics([trajectory]) if name.startswith("audit_")]


def test_the_finding_is_kept_with_the_episode_and_stands_on_the_report(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    episode = episode_of(answer("="))
    record(run, episode, update=2, role="student")
    kept = [json.loads(line) for line in (tmp_path / "episodes" / "update-0002.jsonl").read_text().splitlines()]
    assert kept[-1]["steps"][0]["finding"] == "right plan but wrong action"
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert '"finding": "right plan but wrong action"' in page
