"""Runs side by side, from the raw files of the studies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gtr_agents.compare import comparable, difference_table, draw, group_runs, read_runs, success_table
from gtr_agents.errors import ConfigError, UnknownNameError
from gtr_agents.recorder import RunFolderError

DATA = Path(__file__).parents[2] / "docs" / "results_data"
STUDY = sorted(path for method in ("ppo", "gtr-turbo-kl") for path in DATA.glob(f"{method}-s*"))


def test_runs_that_differ_in_their_seed_are_one_group() -> None:
    groups = group_runs(read_runs(STUDY))
    assert {label: len(runs) for label, runs in groups.items()} == {"gtr-turbo (reverse_kl)": 3, "ppo": 3}


def test_runs_are_grouped_by_what_differs_or_by_what_is_asked() -> None:
    runs = read_runs([*STUDY, DATA / "long-gtr-turbo-kl-s1"])
    assert list(group_runs(runs)) == ["gtr-turbo (reverse_kl), updates=20", "ppo, updates=20",
                                      "gtr-turbo (reverse_kl), updates=200"]  # fmt: skip
    assert list(group_runs(runs, "method")) == ["gtr-turbo (reverse_kl)", "ppo"]
    assert list(group_runs(runs, "updates")) == ["updates=20", "updates=200"]
    with pytest.raises(UnknownNameError, match="Did you mean 'updates'"):
        group_runs(runs, "updatess")


def test_the_tables_tell_the_numbers_of_the_study() -> None:
    groups = group_runs(read_runs(STUDY[::-1]))
    gains = success_table(groups)
    assert "| ppo, student | 3 | 0.192 | 0.343 | +0.151 | +0.126 to +0.177 |" in gains
    differences = difference_table(groups).splitlines()
    assert differences[2].startswith("| gtr-turbo (reverse_kl) - ppo | student | +0.017 | -0.008 to +0.042 | 0.10 |")
    assert differences[3].startswith("| gtr-turbo (reverse_kl) - ppo | merged teacher | +0.009 | +0.003 to +0.016 |")


def test_one_run_gets_no_interval_over_runs() -> None:
    table = success_table(group_runs(read_runs([DATA / "ppo-s1"])))
    assert "| 0.332 | +0.140 | - | +0.086 to +0.193 |" in table


def test_runs_measured_on_other_episodes_are_not_compared() -> None:
    comparable(read_runs(STUDY))
    with pytest.raises(ConfigError, match="env differs"):
        comparable(read_runs([STUDY[0], DATA / "alfworld" / "study" / "ppo-s7"]))


def test_a_run_without_a_final_evaluation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"success_rate_before": 0.1, "episodes": 5}))
    with pytest.raises(RunFolderError, match="success_rate_after"):
        read_runs([tmp_path])


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    path = draw(group_runs(read_runs(STUDY)), tmp_path / "compare.png")
    assert path.read_bytes().startswith(b"\x89PNG")
