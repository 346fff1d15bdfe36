"""The external teacher against real servers: what is sent, what a reply means, every way to fail."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_servers import Reply, ScriptedServer, scripted
from PIL import Image
from small_models import prompts_of, text_env

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.errors import ConfigError, TeacherError
from gtr_agents.guidance.thought_sft import ThoughtSFT
from gtr_agents.parsing import parse_answer
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.prompts import get_template
from gtr_agents.teachers.corrector import parse_verdict
from gtr_agents.teachers.external import ExternalTeacher
from gtr_agents.types import Correction, Response, Rollout, Step

COMPACT = get_template("compact")
STUDENT = '{"cards": [2, 3], "thoughts": "2+3", "action": "2"}'
TEACHER = '{"cards": [2, 6], "thoughts": "2*6", "action": "6"}'


def steps_of(n: int, answer: str = STUDENT, **options: Any) -> list[Step]:
    parsed = parse_answer(answer, COMPACT.required_keys)
    ids, zeros = np.zeros(3, np.int64), np.zeros(3, np.float32)
    response = Response(answer, parsed, ids, ids, zeros, zeros, np.ones(3, np.bool_), 0.0)
    return [Step(prompt, response, 0.0, True, False, **options) for prompt in prompts_of(n=n, env_id="EZPoints-v0")]


def teacher_at(server: ScriptedServer | str, **options: Any) -> ExternalTeacher:
    url = server if isinstance(server, str) else server.url
    return ExternalTeacher(**({"base_url": url, "backoff_s": 0.0, "concurrency": 1, "timeout_s": 5.0} | options))


def verdict(**fields: Any) -> str:
    return json.dumps({"ok": False, "solvable": None, "target": None, "correction": None} | fields)


# --- before anything is sent -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "fine"), [(200, True), (404, True), (401, False), (403, False)])
def test_a_service_that_refuses_the_key_is_known_before_training(status: int, fine: bool) -> None:
    with scripted() as server:
        server.get_status = status
        warning = teacher_at(server).check()
        assert (warning is None) is fine
        if warning is not None:
            assert f"status {status}" in warning
            with pytest.raises(TeacherError, match=r"refuses the key.*OPENAI_API_KEY"):
                teacher_at(server, on_failure="stop").check()
    assert server.bodies == []


def test_a_service_that_is_not_there_is_known_before_the_supervised_start() -> None:
    from gtr_agents.build import check_parts
    from gtr_agents.config import load_config

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    external = ["teacher.name=external", f"teacher.external.base_url={url}"]
    options = ["guidance.name=thought_sft", *external]
    assert "Training begins without it" in str(check_parts(load_config("tiny-points24", options)))
    with pytest.raises(TeacherError, match=r"cannot be asked.*Is it running"):
        check_parts(load_config("tiny-points24", [*options, "teacher.external.on_failure=stop"]))
    with pytest.raises(ConfigError, match="needs a teacher that scores tokens"):
        check_parts(load_config("tiny-points24", external))
    with pytest.raises(ConfigError, match=r"GRPO .* needs rollout\.hands above 0"):
        check_parts(load_config("tiny-points24", ["algorithm=grpo", "rollout.hands=0"]))
    assert check_parts(load_config("tiny-points24")) is None


# --- what is sent ----------------------------------------------------------------------------------------------------


def test_the_teacher_sees_exactly_what_the_agent_saw() -> None:
    (step,) = steps_of(1)
    step.prompt = replace(step.prompt, system="Play well.")
    with scripted(TEACHER) as server:
        assert teacher_at(server, model="m", temperature=0.3, max_tokens=77).think([step], COMPACT) == [
            Correction(answer=TEACHER)
        ]
    (body,) = server.bodies
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.3, 77)
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Play well."}
    picture, text = user["content"]
    assert text == {"type": "text", "text": step.prompt.text}
    data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.array(Image.open(io.BytesIO(data))), step.prompt.image)
    assert STUDENT not in json.dumps(body)


def test_a_corrector_sees_the_thought_without_the_action_and_the_solver_only_if_asked() -> None:
    (step,) = steps_of(1, expert_answer=TEACHER)
    for tool in (False, True):
        with scripted(verdict(ok=True)) as server:
            teacher = teacher_at(server, protocol="corrector", tool=tool)
            assert teacher.needs_expert is tool
            assert teacher.think([step], COMPACT) == [Correction(ok=True)]
        system, user = server.bodies[0]["messages"]
        assert "cards, thoughts." in system["content"]
        text = user["content"][1]["text"]
        assert '{"cards": [2, 3], "thoughts": "2+3"}' in text
        assert '"action": "2"' not in text
        assert (TEACHER in text) is tool


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    for status in (200, 401):
        with scripted(Reply(TEACHER, status=status)) as server:
            teacher = teacher_at(server, api_key_env="MY_KEY")
            (correction,) = teacher.think(steps_of(1), COMPACT)
        assert server.headers[0]["Authorization"] == "Bearer sk-secret"
        told = [
            repr(teacher),
            repr(teacher.settings),
            repr(vars(teacher)),
            json.dumps(teacher.state()),
            repr(correction),
        ]
        assert not any("sk-secret" in text for text in told)


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with scripted(TEACHER) as server:
        teacher_at(server).think(steps_of(1), COMPACT)
    assert "Authorization" not in server.headers[0]


# --- what a reply means ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (verdict(ok=True), Correction(ok=True)),
        (verdict(ok=True, solvable=True, target="2*6"), Correction(ok=True, solvable=True)),
        (verdict(solvable=False), Correction(solvable=False)),
        (
            verdict(solvable=True, correction={"cards": [2, 6], "thoughts": "2*6"}),
            Correction(answer='{"cards": [2, 6], "thoughts": "2*6", "action": "2"}', solvable=True),
        ),
        (f"```json\n{verdict(ok=True)}\n```", Correction(ok=True)),
    ],
)
def test_a_verdict_is_typed(reply: str, expected: Correction) -> None:
    with scripted(reply) as server:
        assert teacher_at(server, protocol="corrector").think(steps_of(1), COMPACT) == [expected]


@pytest.mark.parametrize(
    "reply",
    [
        "No.",
        "yes, it is ok",
        "None",
        "[]",
        '{"ok": "no"}',
        '{"ok": 0}',
        verdict(solvable="no"),
        verdict(target=24),
        verdict(correction="2*6"),
        verdict(),
        '{"ok": true',
        "[" * 5000,
    ],
)
def test_what_is_no_verdict_is_not_read_as_one(reply: str) -> None:
    assert parse_verdict(reply) is None


def test_a_correction_without_all_its_fields_is_tried_again() -> None:
    good = verdict(correction={"cards": [2, 6], "thoughts": "2*6"})
    with scripted(verdict(correction={"thoughts": "2*6"}), good) as server:
        (correction,) = teacher_at(server, protocol="corrector").think(steps_of(1), COMPACT)
    assert correction.answer
    assert len(server.bodies) == 2
    assert server.bodies[0]["seed"] != server.bodies[1]["seed"]


def test_garbage_ends_after_the_configured_attempts() -> None:
    with scripted("I think the answer is 24.") as server:
        teacher = teacher_at(server, retries=2)
        (correction,) = teacher.think(steps_of(1), COMPACT)
    assert correction.error == "no reply was a well-formed answer; the last one began 'I think the answer is 24.'"
    assert len(server.bodies) == 3
    assert teacher.diagnostics()["teacher/failures"] == 1


# --- a server in trouble ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        (Reply(None, status=500), "status 500: no reason given"),
        (Reply(None, status=503, raw=b'{"error": {"message": "over\\nloaded"}}'), "status 503: over loaded"),
        (Reply("", status=429, headers={"Retry-After": "0"}), "status 429"),
        (Reply(None, raw=b"<html>"), "not one of the chat protocol"),
        (Reply(None, raw=b'{"choices": []}'), "not one of the chat protocol"),
        (Reply(None, raw=b'{"choices": [{"message": {"content": null}}]}'), "holds no text but a NoneType"),
        (Reply(drop=True), "RemoteProtocolError"),
        (Reply(TEACHER, delay=3.0), "no answer within 1 s"),
    ],
    ids=["500", "503", "429", "html", "no choice", "no text", "dropped", "slow"],
)
def test_trouble_that_passes_is_waited_for_and_trouble_that_stays_is_told(trouble: Reply, cause: str) -> None:
    with scripted(trouble, TEACHER) as server:
        teacher = teacher_at(server, timeout_s=1.0)
        assert teacher.think(steps_of(1), COMPACT) == [Correction(answer=TEACHER)]
    assert teacher.diagnostics()["teacher/failed_calls"] == 1
    with scripted(trouble) as server:
        (correction,) = teacher_at(server, timeout_s=1.0, retries=1).think(steps_of(1), COMPACT)
    assert correction.answer is None
    assert cause in str(correction.error)
    assert "after 2 attempts" in str(correction.error)
    assert len(server.bodies) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_not_asked_again(status: int) -> None:
    with scripted(Reply("", status=status)) as server:
        (correction,) = teacher_at(server).think(steps_of(1), COMPACT)
    assert str(correction.error).startswith(f"status {status}")
    assert len(server.bodies) == 1


def test_waits_double_up_to_a_limit_and_a_server_may_name_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = Reply("", status=503)
    named = [replace(trouble, headers={"Retry-After": told}) for told in ("0.05", "Wed, 21 Oct 2026 07:28:00 GMT")]
    waits: list[float] = []
    with scripted(trouble, trouble, trouble, *named, TEACHER) as server:
        teacher = teacher_at(server, backoff_s=0.1, max_backoff_s=0.25, retries=5)
        wait = teacher._client._stopping.wait
        monkeypatch.setattr(teacher._client._stopping, "wait", lambda s: waits.append(s) or wait(s))
        teacher.think(steps_of(1), COMPACT)
    assert waits == [0.1, 0.2, 0.25, 0.05, 0.25]
    assert all(np.diff(server.times) >= np.array(waits) - 0.01)


def test_a_dead_server_costs_a_few_failures_and_not_one_for_every_step() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    teacher = teacher_at(url, retries=1, max_failures=2)
    for _ in range(2):  # the next update tries again
        corrections = teacher.think(steps_of(6), COMPACT)
        assert [c.error is not None for c in corrections] == [True] * 6
        assert "ConnectError" in str(corrections[0].error)
        assert corrections[-1].error == "not asked: the last 2 calls or more have failed"
    assert teacher.diagnostics()["teacher/calls"] == 8
    assert teacher.diagnostics()["teacher/failures"] == 12


def test_a_server_that_dies_in_the_middle_loses_only_what_was_not_answered() -> None:
    with scripted(rule=lambda number, _: Reply(TEACHER) if number < 3 else Reply(drop=True)) as server:
        corrections = teacher_at(server, retries=0, max_failures=2).think(steps_of(8), COMPACT)
    assert [c.answer is not None for c in corrections] == [True] * 3 + [False] * 5
    assert len(server.bodies) == 5


def test_the_run_can_be_told_to_stop_with_the_cause() -> None:
    with scripted(Reply("", status=401)) as server:
        teacher = teacher_at(server, on_failure="stop", model="big")
        with pytest.raises(TeacherError, match=r"model 'big'\) has no opinion: status 401.*\$OPENAI_API_KEY"):
            teacher.think(steps_of(3), COMPACT)


def test_an_interruption_does_not_wait_for_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(Reply(TEACHER, delay=2.0)) as server:
        teacher = teacher_at(server, concurrency=2)

        def interrupt(*_arguments: Any, **_options: Any) -> Any:
            time.sleep(0.2)
            raise KeyboardInterrupt

        monkeypatch.setattr("gtr_agents.teachers.external.wait", interrupt)
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            teacher.think(steps_of(4), COMPACT)
        assert time.monotonic() - started < 1.0


def test_calls_go_out_side_by_side_and_come_back_in_order() -> None:
    barrier = threading.Barrier(3, timeout=5)

    def rule(_number: int, body: dict[str, Any]) -> Reply:
        barrier.wait()  # passes only if three requests are there at once
        thought = body["messages"][-1]["content"][1]["text"][:4]
        return Reply(json.dumps({"cards": [], "thoughts": thought, "action": "1"}))

    done: list[int] = []
    steps = steps_of(6)
    for i, step in enumerate(steps):
        step.prompt = replace(step.prompt, text=f"{i:04}")
    with scripted(rule=rule) as server:
        corrections = teacher_at(server, concurrency=3).think(steps, COMPACT, done.append)
    assert [json.loads(str(c.answer))["thoughts"] for c in corrections] == [f"{i:04}" for i in range(6)]
    assert done == [1] * 6


# --- cost ------------------------------------------------------------------------------------------------------------


def test_tokens_and_money_are_counted_and_the_budget_ends_the_questions() -> None:
    with scripted(TEACHER) as server:
        teacher = teacher_at(server, budget_tokens=45, usd_per_million_in=2.0, usd_per_million_out=10.0)
        corrections = teacher.think(steps_of(5), COMPACT)
    assert [c.error for c in corrections] == [None] * 3 + ["the budget of 45 tokens is spent"] * 2
    counted = teacher.diagnostics()
    assert (counted["teacher/tokens_in"], counted["teacher/tokens_out"]) == (30.0, 15.0)
    assert counted["teacher/usd"] == pytest.approx((30 * 2 + 15 * 10) / 1e6)
    assert len(server.bodies) == 3


def test_a_budget_in_money_can_stop_the_run_and_survives_a_restart() -> None:
    options = {"budget_usd": 0.0001, "usd_per_million_in": 10.0, "on_budget": "stop"}
    with scripted(TEACHER) as server:
        teacher = teacher_at(server, **options)
        teacher.think(steps_of(1), COMPACT)
        again = teacher_at(server, **options)
        again.load_state(json.loads(json.dumps(teacher.state())))
        assert again.diagnostics() == teacher.diagnostics()
        with pytest.raises(TeacherError, match=r"The budget of 0\.00 USD is spent; raise"):
            again.think(steps_of(1), COMPACT)
    assert len(server.bodies) == 1


def test_a_service_that_tells_no_usage_is_counted_as_free() -> None:
    with scripted(Reply(TEACHER, usage=None)) as server:
        teacher = teacher_at(server)
        teacher.think(steps_of(1), COMPACT)
    assert teacher.diagnostics()["teacher/tokens_in"] == 0.0


def test_the_cache_answers_again_without_a_server(tmp_path: Path) -> None:
    steps = steps_of(3)
    with scripted(TEACHER) as server:
        first = teacher_at(server, cache=str(tmp_path)).think(steps, COMPACT)
    again = teacher_at(server, cache=str(tmp_path), retries=0)  # the server is gone
    assert again.think(steps, COMPACT) == first
    assert again.diagnostics()["teacher/cache_hits"] == 3
    assert again.diagnostics()["teacher/calls"] == 0
    files = sorted(tmp_path.rglob("*.json"))
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".json"] * 3
    files[0].write_text("{", encoding="utf-8")  # a damaged entry was never kept
    assert sum(c.error is not None for c in again.think(steps, COMPACT)) == 1
    other = teacher_at(server, cache=str(tmp_path), retries=0, temperature=0.9)
    assert all(c.error for c in other.think(steps, COMPACT))


# --- a run with it ---------------------------------------------------------------------------------------------------


class Keep:
    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []

    def on_phase(self, name: str, total: int | None) -> None: ...

    def on_progress(self, n: int) -> None: ...

    def on_update(self, learner: Any, rollout: Rollout, metrics: dict[str, float]) -> None:
        del learner, rollout
        self.metrics.append(metrics)


def gtr(schooled: Path, teacher: ExternalTeacher) -> PPO:
    return PPO(
        VLMPolicy.from_pretrained(schooled),
        lambda: text_env("EZPoints-v0", illegal="terminate"),
        settings=PPOSettings(epochs=1, minibatch_size=16, learning_rate=1e-3),
        rollout=RolloutSettings(n_envs=4, n_steps=16),
        guidance=ThoughtSFT(),
        thinker=teacher,
    )


def test_a_run_goes_on_without_its_teacher_if_it_may(schooled: Path) -> None:
    """The server answers in the first update and is gone in the second."""
    keep = Keep()
    with scripted(TEACHER) as server:
        algorithm = gtr(schooled, teacher_at(server, retries=0, max_failures=1))
        algorithm.learn(updates=1, callbacks=[keep])
    algorithm.learn(updates=2, callbacks=[keep])
    first, second = keep.metrics
    assert first["guidance/samples"] > 0 == first["guidance/failed"]
    assert second["guidance/samples"] == 0 < second["guidance/failed"]
    assert second["guidance/dataset"] == first["guidance/samples"]
    assert second["train/sft_loss"] > 0  # what was learned before is still imitated


def test_a_run_that_is_stopped_by_its_teacher_loses_nothing(schooled: Path, tmp_path: Path) -> None:
    with scripted(TEACHER) as server:
        algorithm = gtr(schooled, teacher_at(server, on_failure="stop", retries=0))
        algorithm.learn(updates=1)
    samples = len(algorithm.guidance.data)
    with pytest.raises(TeacherError, match="ConnectError"):
        algorithm.learn(updates=2)
    folder = algorithm.save(tmp_path / "run")
    with scripted(TEACHER) as server:
        again = gtr(folder, teacher_at(server, on_failure="stop"))
        again.restore(folder)
        assert (again.n_updates, len(again.guidance.data)) == (1, samples)
        again.learn(updates=2)
    assert again.n_updates == 2
    assert again.thinker.diagnostics()["teacher/calls"] > samples
