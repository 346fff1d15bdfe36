"""`gtr eval` on episode sets: real models, real endpoints, real interruptions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_servers import Reply, ScriptedServer
from small_models import tiny_policy

from gtr_agents import cli
from gtr_agents.endpoint import read_endpoint
from gtr_agents.episode_log import EpisodeLog
from gtr_agents.episode_sets import episode_sets
from gtr_agents.errors import ConfigError, EvaluationFolderError
from gtr_agents.evaluate_command import summarise
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.rollout import RolloutCollector
from gtr_agents.serve import PolicyServer

SET = "ezpoints/balanced-v1"
Gtr = Callable[..., tuple[int, str, str]]
PRESET = """\
env: {id: EZPoints-v0, kwargs: {image_size: 96, max_tokens: 5}}
policy: {template: compact, temperature: 0.7, max_new_tokens: 20}
threads: 1
"""


@pytest.fixture
def gtr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gtr]:
    """Run the command in this process, in a folder with a preset: (status, output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "preset.yaml").write_text(PRESET)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = 0
        try:
            cli.main([*arguments, "--preset", "preset.yaml"])
        except SystemExit as ending:
            status = int(ending.code or 0)
        output = capsys.readouterr()
        return status, output.out, output.err

    yield run
    signal.signal(signal.SIGTERM, handler)


def records(folder: str | Path, how: str = "sampled", set_name: str = SET) -> list[dict[str, Any]]:
    (path,) = Path(folder).glob(f"*/{set_name.replace('/', '_')}/{how}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- what is measured -------------------------------------------------------------------------------------------------


def test_models_sets_and_ways_in_one_call(gtr: Gtr, schooled: Path, tmp_path: Path) -> None:
    tiny_policy(max_new_tokens=3).save(tmp_path / "fresh")
    status, out, _ = gtr(
        *("eval", str(schooled), "fresh", "--on", SET, "number_line/far-v1", "--how", "both"),
        *("--episodes", "6", "--batch", "4", "--out", "out"),
    )
    assert status == 0
    results = json.loads(Path("out/results.json").read_text())
    found = [(r["model"], r["set"], r["how"]) for r in results]
    assert found == [
        (m, s, h) for m in (str(schooled), "fresh") for s in (SET, "number_line/far-v1") for h in ("sampled", "greedy")
    ]
    assert all(text in out for text in (str(schooled), "fresh", SET, "number_line/far-v1", "sampled", "greedy"))
    for result in results:
        played = result["played"]
        assert result["episodes"] == len(played) == 6
        assert result["success_low"] <= result["success_rate"] <= result["success_high"]
        assert result["return_low"] <= result["return"] <= result["return_high"]
        assert result["return"] == pytest.approx(sum(r["return"] for r in played) / 6)
        (kinds,) = result["by"].values()
        assert sum(n for _, n in kinds.values()) == 6
    assert results[2]["played"][0]["task"]["distance"] >= 3
    assert [r["valid_rate"] for r in results[4:]] == [0.0] * 4, (
        "a model without training writes no JSON in three tokens"
    )
    assert results[0]["valid_rate"] > 0.5


def test_the_rules_are_the_sets_and_the_look_is_the_models(gtr: Gtr, schooled: Path) -> None:
    assert gtr("eval", str(schooled), "--on", SET, "--episodes", "3", "--greedy", "--out", "result.json")[0] == 0
    result = json.loads(Path("result.json").read_text())
    assert result["env_kwargs"] == {"image_size": 96, "deal": "balanced"}  # not the preset's max_tokens
    assert (result["how"], result["temperature"]) == ("greedy", 0.0)
    assert result["fingerprint"] == episode_sets()[SET].fingerprint


def test_an_episode_is_told_whole(gtr: Gtr, schooled: Path) -> None:
    assert gtr("eval", str(schooled), "--on", SET, "--episodes", "5", "--out", "out")[0] == 0
    for record, dealt in zip(records("out"), episode_sets()[SET].deal(5), strict=True):
        assert (record["seed"], record["task"]) == (dealt.seed, dealt.facts)
        assert len(record["actions"]) == record["steps"] >= record["valid"]
        assert record["legal"] <= record["steps"]
        assert isinstance(record["success"], bool)


def test_what_is_summed_up() -> None:
    won = {"success": True, "return": 10.0, "steps": 4, "valid": 4, "legal": 3, "task": {"band": "easy"}}
    lost = {"success": False, "return": -1.0, "steps": 1, "valid": 0, "legal": 0, "task": {"band": "hard"}}
    found = summarise([won, lost, won], by="band", n_errors=2)
    assert (found["episodes"], found["n_errors"], found["success_rate"]) == (3, 2, pytest.approx(2 / 3))
    assert (found["return"], found["episode_length"]) == (pytest.approx(19 / 3), 3.0)
    assert (found["valid_rate"], found["legal_rate"]) == (pytest.approx(8 / 9), pytest.approx(6 / 9))
    assert found["by"] == {"band": {"easy": [2, 2], "hard": [0, 1]}}
    assert summarise([]) == {"episodes": 0, "n_errors": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--on", "points24/test-v2"), "Did you mean 'points24/test-v1'"),
        (("--on", SET, "--env", "EZPoints-v0"), "leave out --env"),
        (("--on", SET, "--split", "validation"), "leave out --env and --split"),
        (("--on", SET, "--out", "preset.yaml"), "is a file"),
        (("--on", SET, "--batch", "0"), "batch must be at least 1"),
        (("--on", SET, "--role", "start"), "has no start model"),
        (("--on", SET, "--role", "teacher"), "has no teacher"),
    ],
)
def test_what_cannot_be_measured_is_said(gtr: Gtr, schooled: Path, arguments: tuple[str, ...], message: str) -> None:
    status, _, err = gtr("eval", str(schooled), *arguments)
    assert (status, message in err) == (2, True), err


def test_a_hub_id_that_is_not_there_is_said(gtr: Gtr) -> None:
    status, _, err = gtr("eval", "nobody/no-such-model", "--on", SET)
    assert status == 2
    assert "model folder or hub id" in err
    assert "'nobody/no-such-model'" in err


def test_names_of_endpoints() -> None:
    assert read_endpoint("http://h:1/v1") == ("http://h:1/v1", "")
    assert read_endpoint("openai:org/model@2@https://h/v1") == ("https://h/v1", "org/model@2")
    with pytest.raises(ConfigError, match="openai:MODEL@http"):
        read_endpoint("openai:model")


# --- interruptions ----------------------------------------------------------------------------------------------------

WHOLE = ("--on", SET, "--episodes", "12", "--batch", "2")


@pytest.fixture(scope="module")
def uninterrupted(schooled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an evaluation from beginning to end."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "preset.yaml").write_text(PRESET)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        cli.main(["eval", str(schooled), *WHOLE, "--out", "out", "--preset", "preset.yaml"])
    signal.signal(signal.SIGTERM, handler)
    return folder / "out"


def started(model: Path, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gtr_agents.cli", "eval", str(model), *WHOLE, "--out", "out"]
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    return subprocess.Popen([*command, "--preset", "preset.yaml"], cwd=folder, env=environment)


def episodes_file(folder: Path) -> Path | None:
    return next(folder.rglob("sampled.jsonl"), None)


def test_a_killed_evaluation_goes_on_to_the_same_episodes(
    gtr: Gtr, schooled: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(schooled, tmp_path) as process:
        while (path := episodes_file(tmp_path)) is None or path.read_bytes().count(b"\n") < 4:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    left = records(tmp_path / "out")
    assert 4 <= len(left) < 12
    played: list[int] = []
    play = RolloutCollector.play_episodes

    def watched(self: RolloutCollector, policy: Any, seeds: Any, **options: Any) -> Any:
        played.extend(seeds)
        return play(self, policy, seeds, **options)

    monkeypatch.setattr(RolloutCollector, "play_episodes", watched)
    assert gtr("eval", str(schooled), *WHOLE, "--out", "out")[0] == 0
    assert len(played) == 12 - len(left) // 2 * 2
    path, whole = episodes_file(tmp_path), episodes_file(uninterrupted)
    assert path is not None
    assert whole is not None
    assert path.read_bytes() == whole.read_bytes()
    same = [json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "out", uninterrupted)]
    assert same[0] == same[1]


def test_half_a_line_and_half_a_batch_are_played_again(
    gtr: Gtr, schooled: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "out")
    path = episodes_file(tmp_path / "out")
    assert path is not None
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:8])[:-9])
    assert gtr("eval", str(schooled), *WHOLE, "--out", "out")[0] == 0
    assert path.read_bytes() == whole


def test_a_finished_evaluation_is_not_played_again(
    gtr: Gtr, schooled: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "out")
    monkeypatch.setattr(RolloutCollector, "play_episodes", lambda *_, **__: pytest.fail("played again"))
    status, out, _ = gtr("eval", str(schooled), *WHOLE, "--out", "out")
    assert (status, SET in out) == (0, True)


def test_ctrl_c_keeps_what_is_there_and_says_how_to_go_on(
    gtr: Gtr, schooled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play, calls = RolloutCollector.play_episodes, []

    def interrupted(self: RolloutCollector, *arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return play(self, *arguments, **options)

    monkeypatch.setattr(RolloutCollector, "play_episodes", interrupted)
    status, out, _ = gtr("eval", str(schooled), *WHOLE, "--out", "out")
    assert status == 130
    assert "4 of 12 episodes are kept in out" in out
    assert "The same command goes on" in out
    assert len(records("out")) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--seed", "1"), "seed was 0, is 1"),
        (("--batch", "4"), "batch was 2, is 4"),
        (("--episodes", "13"), "first was 12, is 13"),
    ],
)
def test_a_folder_of_other_settings_is_refused(
    gtr: Gtr, schooled: Path, uninterrupted: Path, tmp_path: Path, change: tuple[str, ...], message: str
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "out")
    status, _, err = gtr("eval", str(schooled), *WHOLE, *change, "--out", "out")
    assert (status, message in err) == (2, True), err
    assert "Choose another folder" in err


def test_a_folder_of_other_weights_is_refused(gtr: Gtr, schooled: Path, tmp_path: Path) -> None:
    shutil.copytree(schooled, tmp_path / "model")
    assert gtr("eval", "model", "--on", SET, "--episodes", "2", "--out", "out")[0] == 0
    tiny_policy(max_new_tokens=20, seed=1).save(tmp_path / "model")
    status, _, err = gtr("eval", "model", "--on", SET, "--episodes", "2", "--out", "out")
    assert status == 2
    assert "identity / files / model.safetensors / sha256 was" in err
    assert "value_head" not in err


def test_a_log_names_what_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "x" / "sampled.jsonl"
    EpisodeLog(path, {"a": 1}).add([{"seed": 3}, {"seed": 4, "error": "gone"}])
    log = EpisodeLog(path, {"a": 1})
    assert (list(log.records), log.errors) == ([3], {4: "gone"})
    log.add([{"seed": 4}])
    assert (sorted(EpisodeLog(path, {"a": 1}).records), log.errors) == ([3, 4], {})
    path.write_text('{"seed": 3}\n[]\n')
    with pytest.raises(EvaluationFolderError, match="Line 2 of"):
        EpisodeLog(path, {"a": 1})
    path.with_suffix(".json").unlink()
    with pytest.raises(EvaluationFolderError, match=r"sampled\.json is missing"):
        EpisodeLog(path, {"a": 1})


# --- endpoints --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(schooled: Path) -> Iterator[PolicyServer]:
    with PolicyServer(VLMPolicy.from_pretrained(schooled), "tiny", port=0) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


def test_a_served_model_plays_as_it_plays_here(gtr: Gtr, schooled: Path, server: PolicyServer) -> None:
    few = ("--on", SET, "--episodes", "8", "--greedy")
    assert gtr("eval", str(schooled), *few, "--out", "here")[0] == 0
    status, out, err = gtr("eval", server.url, *few, "--out", "there")
    assert (status, err) == (0, "")
    assert f"tiny at {server.url}" in out
    assert records("there", "greedy") == records("here", "greedy")
    assert any(action is not None for record in records("there", "greedy") for action in record["actions"])


def test_sampled_answers_of_a_served_model_can_be_repeated_and_differ_between_seeds(
    gtr: Gtr, server: PolicyServer
) -> None:
    name = f"openai:tiny@{server.url}"
    for out, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert gtr("eval", name, "--on", SET, "--episodes", "8", "--seed", seed, "--out", out)[0] == 0
    assert records("a") == records("b") != records("c")


@pytest.fixture
def scripted() -> Iterator[Callable[[Callable[[int, dict[str, Any]], Reply]], ScriptedServer]]:
    running: list[ScriptedServer] = []

    def start(rule: Callable[[int, dict[str, Any]], Reply]) -> ScriptedServer:
        running.append(ScriptedServer(rule))
        return running[-1]

    yield start
    for server in running:
        server.close()


ANSWER = '{"cards": [1, 2], "thoughts": "", "action": "="}'
ONE_AT_A_TIME = ("--endpoint.concurrency", "1", "--endpoint.retries", "0")


def test_failed_requests_are_recorded_and_never_played(gtr: Gtr, scripted: Any) -> None:
    down = {"now": True}
    server = scripted(lambda i, _: Reply(ANSWER, status=400 if down["now"] and i >= 5 else 200))
    name = f"openai:m@{server.url}"
    call = ("eval", name, "--on", SET, "--episodes", "12", "--batch", "4", "--out", "out", *ONE_AT_A_TIME)
    status, out, err = gtr(*call, "--endpoint.max-failures", "3")
    assert status == 2
    assert "3 requests in a row have failed, the last one with status 400" in err
    assert "5 of 12 episodes are kept in out" in out
    found = records("out")
    assert [("error" in r) for r in found] == [False] * 5 + [True] * 3
    assert found[5].keys() == {"seed", "error"}
    assert len(server.bodies) == 8, "nothing is asked after the limit"
    down["now"] = False
    assert gtr(*call)[0] == 0
    assert len(server.bodies) == 8 + 7, "only what is missing is asked"
    (result,) = json.loads(Path("out/results.json").read_text())
    assert (result["episodes"], result["n_errors"], result["errors"]) == (12, 0, {})


def test_a_single_failure_is_left_out_and_told(gtr: Gtr, scripted: Any) -> None:
    server = scripted(lambda i, _: Reply(ANSWER, status=400 if i == 1 else 200))
    call = ("eval", f"openai:m@{server.url}", "--on", SET, "--episodes", "4", "--out", "r.json", *ONE_AT_A_TIME)
    status, out, _ = gtr(*call)
    assert status == 0
    result = json.loads(Path("r.json").read_text())
    assert (result["episodes"], result["n_errors"], len(result["played"])) == (3, 1, 3)
    assert "status 400" in result["errors"]["2000001"]
    assert "failed" in out


def test_a_failure_in_the_middle_of_an_episode_ends_it_without_an_action(gtr: Gtr, scripted: Any) -> None:
    two = '{"cards": [1, 2], "thoughts": "", "action": "no such thing"}'
    server = scripted(lambda i, _: Reply(two, status=400 if i == 2 else 200))
    call = ("eval", f"openai:m@{server.url}", "--on", SET, "--episodes", "1", "--out", "out", *ONE_AT_A_TIME)
    assert gtr(*call)[0] == 0
    assert [r.keys() for r in records("out")] == [{"seed", "error"}]


def test_a_budget_ends_an_evaluation(gtr: Gtr, scripted: Any) -> None:
    server = scripted(lambda *_: Reply(ANSWER))  # 15 tokens each
    call = ("eval", f"openai:m@{server.url}", "--on", SET, "--episodes", "9", "--batch", "3", "--out", "out")
    status, out, err = gtr(*call, *ONE_AT_A_TIME, "--endpoint.budget-tokens", "60")
    assert status == 2
    assert "budget of 60 tokens is spent" in err
    assert "4 of 9 episodes are kept" in out
    assert len(server.bodies) == 4
    assert gtr(*call, *ONE_AT_A_TIME)[0] == 0
    assert len(server.bodies) == 9


def test_what_is_sent(gtr: Gtr, scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_A_TEST", "secret")
    server = scripted(lambda *_: Reply(ANSWER))
    call = ("eval", f"openai:m@{server.url}", "--on", SET, "--episodes", "2", "--out", "out")
    options = ("--template", "paper", "--endpoint.api-key-env", "KEY_OF_A_TEST", "--how", "both")
    assert gtr(*call, *options)[0] == 0
    sampled, greedy = server.bodies[0], server.bodies[-1]
    assert (sampled["model"], sampled["max_tokens"]) == ("m", 20)
    assert (sampled["temperature"], greedy["temperature"]) == (0.7, 0.0)
    picture, text = sampled["messages"][-1]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert "Answer with exactly one JSON object" in text["text"]
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert not any(b"secret" in path.read_bytes() for path in Path("out").rglob("*.json*"))


def test_an_endpoint_that_is_not_there_is_said(gtr: Gtr) -> None:
    status, _, err = gtr("eval", "openai:m@http://127.0.0.1:9/v1", "--on", SET)
    assert (status, "cannot be asked" in err) == (2, True)
    status, _, err = gtr("eval", "openai:m@http://127.0.0.1:9/v1", "--on", SET, "--teacher")
    assert (status, "has no teacher" in err) == (2, True)


def test_an_endpoint_has_to_be_told_what_to_play(gtr: Gtr, server: PolicyServer) -> None:
    status, _, err = gtr("eval", server.url)
    assert (status, "--on SET" in err) == (2, True)
