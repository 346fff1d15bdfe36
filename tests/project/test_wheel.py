"""What is built holds what is needed at run time, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a freshly built wheel."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize("package", ["gtr_envs", "gtr_agents"])
def test_the_wheel_holds_every_file_of_the_package(wheel_names: set[str], package: str) -> None:
    files = [path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    missing = {str(path.relative_to(ROOT)) for path in files} - wheel_names
    assert not missing
    assert f"{package}/py.typed" in wheel_names


def test_the_wheel_holds_the_presets(wheel_names: set[str]) -> None:
    assert "gtr_agents/presets/tiny-points24.yaml" in wheel_names


def test_the_wheel_installs_the_two_packages_only(wheel_names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel_names if ".dist-info/" not in name}
    assert tops == {"gtr_envs", "gtr_agents"}


def test_the_wheel_offers_the_command(wheel_names: set[str]) -> None:
    assert any(name.endswith(".dist-info/entry_points.txt") for name in wheel_names)
    assert any(name.endswith("/licenses/LICENSE") for name in wheel_names)
