"""`gtr serve`: real requests over a real socket, answered by a real (tiny) model."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import prompts_of, text_env

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.errors import ConfigError
from gtr_agents.guidance.thought_sft import ThoughtSFT
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.seeding import torch_generator
from gtr_agents.serve import MAX_SIDE, PolicyServer
from gtr_agents.teachers.corrector import data_url
from gtr_agents.teachers.external import ExternalTeacher
from gtr_agents.types import Prompt, Rollout


@pytest.fixture(scope="module")
def server(schooled: Path) -> Iterator[PolicyServer]:
    with PolicyServer(VLMPolicy.from_pretrained(schooled), "tiny", port=0) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


def request(server: PolicyServer, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", int(server.server_address[1]), timeout=60)
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    connection.request("GET" if body is None else "POST", path, data, headers)
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    return response.status, content


def chat(prompt: Prompt, **options: Any) -> dict[str, Any]:
    content = [
        {"type": "image_url", "image_url": {"url": data_url(prompt.image)}},
        {"type": "text", "text": prompt.text},
    ]
    return {"model": "tiny", "messages": [{"role": "user", "content": content}]} | options


def complete(server: PolicyServer, body: dict[str, Any]) -> dict[str, Any]:
    status, reply = request(server, "/v1/chat/completions", body)
    assert status == 200, reply
    return reply


def test_a_greedy_answer_is_the_policys_with_its_real_token_counts(server: PolicyServer) -> None:
    prompt = prompts_of(n=1, env_id="EZPoints-v0")[0]
    reply = complete(server, chat(prompt, temperature=0))
    (expected,) = server.policy.act([prompt])
    (choice,) = reply["choices"]
    assert choice["message"] == {"role": "assistant", "content": expected.text}
    assert choice["finish_reason"] == ("length" if expected.truncated else "stop")
    sent, written = len(expected.prompt_ids), len(expected.token_ids)
    assert reply["usage"] == {"prompt_tokens": sent, "completion_tokens": written, "total_tokens": sent + written}


def test_a_seed_repeats_a_sampled_answer_and_the_temperature_is_the_requests(server: PolicyServer) -> None:
    prompt = prompts_of(n=1, env_id="EZPoints-v0")[0]
    texts = [
        complete(server, chat(prompt, temperature=1.5, seed=s))["choices"][0]["message"]["content"] for s in (1, 1)
    ]
    (expected,) = server.policy.act([prompt], generator=[torch_generator(1, "served")], temperature=1.5)
    assert texts == [expected.text] * 2
    others = {complete(server, chat(prompt, temperature=1.5))["choices"][0]["message"]["content"] for _ in range(8)}
    assert len(others) > 1


def test_a_length_is_kept(server: PolicyServer) -> None:
    reply = complete(server, chat(prompts_of(n=1, env_id="EZPoints-v0")[0], temperature=0, max_tokens=3))
    assert reply["usage"]["completion_tokens"] == 3
    assert reply["choices"][0]["finish_reason"] == "length"


def test_requests_that_come_together_are_answered_together_and_each_gets_its_own(
    server: PolicyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = prompts_of(n=12, env_id="EZPoints-v0")
    sizes: list[int] = []
    act = server.policy.act

    def watched(given: Any, **options: Any) -> Any:
        sizes.append(len(given))
        return act(given, **options)

    monkeypatch.setattr(server.policy, "act", watched)
    bodies = [chat(prompt, temperature=0, max_tokens=20 - i % 2) for i, prompt in enumerate(prompts)]
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda body: complete(server, body), bodies))
    monkeypatch.undo()
    assert sum(sizes) == 12
    assert max(sizes) > 1
    for i, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        (alone,) = server.policy.act([prompt], max_new_tokens=20 - i % 2)
        assert reply["choices"][0]["message"]["content"] == alone.text


PICTURE = {"type": "image_url", "image_url": {"url": data_url(np.zeros((8, 8, 3), np.uint8))}}
WORDS = {"type": "text", "text": "hi"}


def turns(*parts: Any, **options: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]} | options


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "not JSON"),
        ([], 400, "expected a JSON object, got list"),
        ({}, 400, "messages must be a list"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "got roles ['assistant']"),
        (turns(WORDS), 400, "expected one picture in the user turn, got 0"),
        (turns(PICTURE, PICTURE), 400, "got 2"),
        (turns(PICTURE, {"type": "audio"}), 400, "neither text nor image_url: type 'audio'"),
        ({"messages": [{"role": "user", "content": 3}]}, 400, "must be a text or a list of parts"),
        (turns({"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}), 400, "must be a data URL"),
        (turns({"type": "image_url", "image_url": {"url": "data:image/png;base64,@@"}}), 400, "cannot be read"),
        (turns({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}), 400, "cannot be read"),
        (turns(PICTURE, temperature=-1), 400, "temperature must be a number of at least 0, got -1"),
        (turns(PICTURE, temperature="hot"), 400, "temperature must be a number"),
        (turns(PICTURE, max_tokens=0), 400, "max_tokens must be a number of at least 1"),
        (turns(PICTURE, stream=True), 400, "stream=True is not offered"),
        (turns(PICTURE, n=2), 400, "n=2 is not offered"),
    ],
)
def test_a_bad_request_is_refused_with_the_reason(server: PolicyServer, body: Any, status: int, message: str) -> None:
    got, reply = request(server, "/v1/chat/completions", body)
    assert got == status
    assert message in reply["error"]["message"]
    assert reply["error"]["type"] == "invalid_request_error"


def test_what_is_too_large_is_refused(server: PolicyServer) -> None:
    wide = {"type": "image_url", "image_url": {"url": data_url(np.zeros((1, MAX_SIDE + 1, 3), np.uint8))}}
    status, reply = request(server, "/v1/chat/completions", turns(wide))
    assert (status, reply["error"]["message"][:16]) == (413, "a picture may ha")
    status, _ = request(server, "/v1/chat/completions", b"{}", **{"Content-Length": str(10**9)})
    assert status == 413


def test_other_addresses(server: PolicyServer) -> None:
    assert request(server, "/v1/models")[1]["data"] == [{"id": "tiny", "object": "model"}]
    assert request(server, "/health")[1]["status"] == "ok"
    assert request(server, "/nothing")[0] == request(server, "/v1/completions", {})[0] == 404


def test_a_failing_model_is_told_and_the_server_lives_on(server: PolicyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = prompts_of(n=1, env_id="EZPoints-v0")[0]

    def broken(*_arguments: Any, **_options: Any) -> None:
        raise ValueError("out of luck")

    monkeypatch.setattr(server.policy, "act", broken)
    status, reply = request(server, "/v1/chat/completions", chat(prompt))
    assert (status, reply["error"]["type"]) == (500, "server_error")
    assert reply["error"]["message"] == "the model failed: ValueError: out of luck"
    monkeypatch.undo()
    complete(server, chat(prompt))


def test_the_gtr_baseline_trains_against_it(server: PolicyServer, schooled: Path) -> None:
    """A model that is served teaches a student over HTTP what it would teach in the same process."""
    metrics: list[dict[str, float]] = []

    class Keep:
        def on_phase(self, name: str, total: int | None) -> None: ...

        def on_progress(self, n: int) -> None: ...

        def on_update(self, learner: Any, rollout: Rollout, values: dict[str, float]) -> None:
            del learner, rollout
            metrics.append(values)

    algorithm = PPO(
        VLMPolicy.from_pretrained(schooled),
        lambda: text_env("EZPoints-v0", illegal="terminate"),
        settings=PPOSettings(epochs=1, minibatch_size=16, learning_rate=1e-3),
        rollout=RolloutSettings(n_envs=4, n_steps=16),
        guidance=ThoughtSFT(),
        thinker=ExternalTeacher(base_url=server.url, temperature=0.2, concurrency=4),
    )
    algorithm.learn(updates=2, callbacks=[Keep()])
    assert all(m["guidance/samples"] > 0 < m["train/sft_loss"] for m in metrics)
    assert metrics[1]["teacher/tokens_out"] > metrics[0]["teacher/tokens_out"] > 0
    assert metrics[1]["guidance/dataset"] == metrics[0]["guidance/samples"] + metrics[1]["guidance/samples"]


@pytest.mark.usefixtures("ctrl_c_is_heard")
def test_the_command_serves_until_it_is_interrupted(schooled: Path) -> None:
    command = [sys.executable, "-u", "-m", "gtr_agents.cli", "serve", str(schooled), "--port", "0"]
    environment = os.environ | {"SDL_VIDEODRIVER": "dummy"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "Ctrl-C ends it" in line, line
        port = int(line.rpartition(":")[2].partition("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/v1/models")
        assert connection.getresponse().read().startswith(b'{"object": "list"')
        connection.close()
        process.send_signal(signal.SIGINT)
        try:
            out, errors = process.communicate(timeout=60)
        finally:
            process.kill()  # leaving the block waits for it
    assert "Stopped after 0 answers." in out
    assert (process.returncode, errors) == (0, "")


def test_an_address_in_use_is_said(server: PolicyServer, schooled: Path) -> None:
    from rich.console import Console

    from gtr_agents.commands import serve_model

    port = int(server.server_address[1])
    with pytest.raises(ConfigError, match=rf"Cannot listen at 127\.0\.0\.1:{port}.*--port"):
        serve_model(schooled, host="127.0.0.1", port=port, teacher=False, max_batch=4, console=Console())
    with pytest.raises(ConfigError, match="max_batch must be at least 1"):
        serve_model(schooled, host="127.0.0.1", port=0, teacher=False, max_batch=0, console=Console())
