"""W&B and trackio get what the run folder gets: real runs, W&B in its offline mode, trackio in its local database."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gtr_agents import trackers
from gtr_agents.config import load_config
from gtr_agents.errors import ConfigError, DependencyError
from gtr_agents.files import LOCK
from gtr_agents.recorder import RunFolder
from gtr_agents.trackers import IDS_FILE, Trackers, check_trackers

INSTALLED = [name for name in ("wandb", "trackio") if find_spec(name)]
KEY = "0123456789" * 4
SMALL = (
    "policy.tiny={hidden_size: 32, layers: 1, heads: 2, ff_size: 32, vision_layers: 1}",
    "policy.max_new_tokens=8",
    "threads=1",
    "sft.steps=2",
    "sft.batch_size=4",
    "updates=2",
    "rollout={hands: 2, attempts: 2}",
    "evaluation={episodes: 2, recorded: 0, every: 0}",
    "max_minutes=1.0e-6",  # ends after each update, so that there is something to resume
)
SCRIPT = """
import sys, gtr_agents
folder, *overrides = sys.argv[1:]
gtr_agents.train("tiny-points24", out=folder, overrides=overrides, quiet=True)
gtr_agents.resume(folder, quiet=True)
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "TRACKIO"))}
    return kept | {"TRACKIO_DIR": str(folder / "trackio"), "WANDB_MODE": "offline"} | more


def wandb_records(file: Path) -> Iterator[Any]:
    """Read a file of W&B's: a header of 7 bytes, then the log format of LevelDB in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was resumed once, with every tracker that is installed."""
    if not INSTALLED:
        pytest.skip('needs pip install "gtr-suite[trackers]"')
    folder = tmp_path_factory.mktemp("runs") / "my-run"
    command = [sys.executable, "-c", SCRIPT, str(folder), f"trackers=[{','.join(INSTALLED)}]", *SMALL]
    done = subprocess.run(command, env=environment(folder.parent), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "failed, and training goes on" not in done.stderr
    assert "rackio" not in done.stdout
    return folder


def logged(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if v is not None} for line in RunFolder.open(folder).metrics()]


def test_wandb_has_the_lines_the_configuration_and_the_summary_of_a_resumed_run(folder: Path) -> None:
    pytest.importorskip("wandb", reason='needs pip install "gtr-suite[trackers]"')
    run_id = json.loads((folder / IDS_FILE).read_text())["wandb"]
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    assert [file.name for file in files] == [f"run-{run_id}.wandb"] * 2
    history, summary, started = [], {}, []
    for file in files:
        for record in wandb_records(file):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                history.append(values(record.history.item))
            elif kind == "summary":
                summary |= values(record.summary.update)
            elif kind == "run":
                started.append(record.run)
    lines = logged(folder)
    # It adds its own clocks, and the environment steps so far where a line has none.
    assert all(any(line.items() <= sent.items() for sent in history) for line in lines)
    assert {run.display_name for run in started} == {"my-run"}
    config = values(started[0].config.update)
    assert config["updates"] == 2
    assert config["preset"] == "tiny-points24"
    assert config["report"] == str(folder / "report.html")
    assert Path(config["report"]).is_file()
    own = RunFolder.open(folder).summary()
    assert summary["success_rate_after"] == own["success_rate_after"]
    assert summary["report"] == config["report"]


def test_trackio_has_the_lines_the_configuration_and_the_summary_of_a_resumed_run(folder: Path) -> None:
    pytest.importorskip("trackio", reason='needs pip install "gtr-suite[trackers]"')
    run_id = json.loads((folder / IDS_FILE).read_text())["trackio"]
    database = sqlite3.connect(folder.parent / "trackio" / "gtr-suite.db")
    rows = database.execute("SELECT run_name, metrics FROM metrics ORDER BY id").fetchall()
    configs = database.execute("SELECT run_name, config FROM configs").fetchall()
    database.close()
    assert {name for name, _ in rows} == {name for name, _ in configs} == {f"my-run-{run_id}"}
    sent = [json.loads(metrics) for _, metrics in rows]
    lines = logged(folder)
    assert [line for line in lines if line in sent] == lines
    assert sent[-1]["summary/success_rate_after"] == RunFolder.open(folder).summary()["success_rate_after"]
    assert len(configs) == 1
    config = json.loads(configs[0][1])
    assert config["updates"] == 2
    assert config["report"] == str(folder / "report.html")


def test_a_tracker_that_is_not_reached_is_a_warning_and_no_key_is_written(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason='needs pip install "gtr-suite[trackers]"')
    code = (
        "from gtr_agents.recorder import RunFolder; from gtr_agents.trackers import Trackers, check_trackers\n"
        "check_trackers(['wandb'])\n"
        "with RunFolder('run') as run, Trackers(['wandb'], run, {'a': 1}) as sent:\n"
        "    run.log({'x': 1.0}); run.log({'x': 2.0}); sent.summarise({'y': 3})\n"
    )
    nowhere = {"WANDB_MODE": "online", "WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    env = environment(tmp_path, WANDB_INIT_TIMEOUT="5", PYTHONPATH=os.pathsep.join(sys.path), **nowhere)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("The tracker 'wandb' failed, and training goes on") == 1
    assert len(RunFolder.open(tmp_path / "run").metrics()) == 2
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


# --- without the packages


class Broken:
    """A tracker's run whose network is gone."""

    def log(self, _line: Any) -> None:
        raise ConnectionError("no route")

    def finish(self, exit_code: int) -> None:
        raise ConnectionError(f"no route at the end, {exit_code}")


def test_what_fails_later_is_warned_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers._BEGIN, "wandb", lambda *_: Broken())
    with RunFolder(tmp_path) as run, Trackers(["wandb"], run, {}) as sent:
        with pytest.warns(UserWarning, match="ConnectionError: no route"):
            run.log({"x": 1.0})
        run.log({"x": 2.0})  # a warning would be an error
        sent.summarise({"y": 3})
    assert [line["x"] for line in run.metrics()] == [1.0, 2.0]


def test_without_trackers_nothing_is_written(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run, Trackers([], run, {}) as sent:
        sent.summarise({"y": 3})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_told_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gtr_agents

    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(DependencyError, match=r"package 'trackio' is not installed. Run: pip install \"gtr-suite\[tra"):
        gtr_agents.train("tiny-points24", out=tmp_path / "run", overrides=["trackers=[trackio]"], quiet=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]


def test_wandb_without_a_key_is_told_before_it_can_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _: True)
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"WANDB_API_KEY is not set.*WANDB_MODE=offline"):
        check_trackers(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(["wandb"])


def test_an_unknown_tracker_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"trackers.*'wandb' or 'trackio'"):
        load_config("tiny-points24", ["trackers=[mlflow]"])
