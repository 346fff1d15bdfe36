"""The wording of errors, and seeds that are independent, named and stable."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from gtr_agents.errors import ConfigError, GtrError, unknown_name
from gtr_agents.seeding import child_seed, numpy_generator, torch_generator


def test_unknown_name_lists_what_exists_sorted_and_suggests_the_nearest() -> None:
    error = unknown_name("preset", "tiny-ezpoint", ["tiny-points24", "tiny-ezpoints", "paper"])
    assert str(error) == (
        "Unknown preset 'tiny-ezpoint'; expected one of: paper, tiny-ezpoints, tiny-points24. "
        "Did you mean 'tiny-ezpoints'?"
    )


def test_unknown_name_suggests_nothing_when_nothing_is_near() -> None:
    assert "Did you mean" not in str(unknown_name("preset", "zzz", ["paper"]))


def test_unknown_name_accepts_anything_as_name_and_an_empty_table() -> None:
    assert "(none)" in str(unknown_name("preset", 3, []))


def test_an_unknown_name_is_caught_as_configuration_error_and_as_error_of_the_package() -> None:
    error = unknown_name("preset", "x", [])
    assert isinstance(error, ConfigError)
    assert isinstance(error, GtrError)


def test_child_seeds_do_not_change_between_versions() -> None:
    assert child_seed(7, "rollout", 3) == 2433456445101597


def test_child_seed_is_the_same_in_another_process() -> None:
    code = "from gtr_agents.seeding import child_seed; print(child_seed(7, 'rollout', 3))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) == child_seed(7, "rollout", 3)


def test_child_seeds_differ_by_run_name_number_and_path() -> None:
    paths = [("a",), ("b",), ("a", 0), ("a", 1), ("a", "1"), ("a", "b"), ("ab",), ()]
    seeds = {child_seed(seed, *path) for seed in (0, 1, -1, 2**70) for path in paths}
    assert len(seeds) == 4 * len(paths)


def test_child_seed_fits_into_the_whole_numbers_of_a_double() -> None:
    seeds = [child_seed(0, n) for n in range(500)]
    assert all(0 <= seed < 2**53 for seed in seeds)
    assert max(seeds) > 2**52


def test_child_seed_takes_numpy_integers_for_what_they_are() -> None:
    assert child_seed(np.int64(7), "a", np.int32(1)) == child_seed(7, "a", 1)  # type: ignore[arg-type]


def test_generators_repeat_and_leave_the_global_ones_alone() -> None:
    before = torch.get_rng_state()
    first, second = (torch.rand(3, generator=torch_generator(1, "policy")) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert numpy_generator(1, "policy").random() == numpy_generator(1, "policy").random()
    assert numpy_generator(1, "policy").random() != numpy_generator(1, "order").random()


@pytest.mark.parametrize("module", ["errors", "seeding", "metrics", "parsing", "advantages", "teachers", "guidance"])
def test_light_modules_load_no_torch(module: str) -> None:
    code = f"import sys, gtr_agents.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
