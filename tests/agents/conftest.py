"""Models that many tests share: made once a process, never changed by a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_families import FAMILIES
from small_models import text_env, tiny_policy

from gtr_agents.demonstrations import demonstrations
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.sft import SFTSettings, train_sft


@pytest.fixture(autouse=True)
def global_generators_stay_as_they_are() -> Iterator[None]:
    """Whatever a test does, library code must not draw from or seed the global generators."""
    before, drawn = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    yield
    assert torch.equal(before, torch.get_rng_state()), "the global torch generator was used"
    assert drawn == np.random.get_state()[1].tolist(), "the global NumPy generator was used"  # noqa: NPY002


@pytest.fixture
def policy() -> VLMPolicy:
    """A fresh tiny policy with random weights, compact template."""
    return tiny_policy()


@pytest.fixture(scope="session")
def schooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny policy that has learned the format of EZPoints answers, and little more.

    Of its sampled answers some nine in ten are well formed and four in ten legal moves.
    """
    policy = tiny_policy(max_new_tokens=20)
    data = demonstrations(lambda: text_env("EZPoints-v0"), policy.template, np.random.default_rng(0), buffer=128)
    train_sft(policy, data, SFTSettings(steps=40, batch_size=16, learning_rate=1e-2, warmup_steps=5))
    return policy.save(tmp_path_factory.mktemp("schooled"))


@pytest.fixture(scope="session", params=sorted(FAMILIES))
def family_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small random model of a real family, as it is published."""
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))
