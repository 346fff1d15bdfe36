"""A run that is killed at any call, and resumed, ends bit for bit as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CRASHES = 9
"""For each of three variants: 27 in all, every third of them followed by another one while it resumes."""


@pytest.mark.timeout(600)  # some twenty small runs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("variant", ["memory", "disk", "sft"])
def test_a_run_survives_being_killed_at_any_call(variant: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name("crashes.py")
    command = [sys.executable, str(script), str(tmp_path), variant, str(CRASHES), "0"]
    environment = os.environ | {
        "PYTHONPATH": str(script.parents[2])
    }  # of this checkout, also where another is installed
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=580, env=environment)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report) == CRASHES
    assert all(run["deaths"] for run in report)
    assert [run for run in report if run["different"]] == []
