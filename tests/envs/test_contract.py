"""The shipped contract suite: it accepts every registered environment, and finds every kind of breach."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import gtr_envs
from gtr_envs.cards.points24 import Points24Env
from gtr_envs.core import IllegalText, Outcome
from gtr_envs.errors import ContractError
from gtr_envs.registration import ENVS, register_envs
from gtr_envs.testing import CHECKS, check_vision_text_env


@pytest.mark.parametrize("env_id", ENVS)
def test_every_environment_keeps_to_the_contract(env_id: str) -> None:
    check_vision_text_env(env_id, image_size=64)


@pytest.mark.parametrize("env_id", ENVS)
def test_gymnasium_checks_rendering_too(env_id: str) -> None:
    check_env(gym.make(env_id, image_size=64).unwrapped)


@pytest.mark.parametrize("env_id", ENVS)
def test_a_pickled_environment_goes_on_where_it_was(env_id: str) -> None:
    env: Any = gym.make(env_id, image_size=64, render_mode="human").unwrapped
    env.reset(seed=3)
    twin = pickle.loads(pickle.dumps(env))  # noqa: S301 - made on this line
    first = int(np.flatnonzero(env.action_mask)[0])
    ours, theirs = env.step(first), twin.step(first)
    assert ours[0]["text"] == theirs[0]["text"]
    assert (ours[0]["image"] == theirs[0]["image"]).all()
    assert np.array_equal(env.reset()[0]["image"], twin.reset()[0]["image"])
    env.close()
    twin.close()


@pytest.mark.parametrize("env_id", ENVS)
def test_two_copies_with_one_seed_agree_for_fifty_steps(env_id: str) -> None:
    first, second = (gym.make(env_id, image_size=64) for _ in range(2))
    for env in (first, second):
        env.reset(seed=5)
        env.action_space.seed(5)
    for _ in range(50):
        ours, theirs = first.step(first.action_space.sample()), second.step(second.action_space.sample())
        assert ours[1:4] == theirs[1:4]
        assert ours[0]["text"] == theirs[0]["text"]
        assert np.array_equal(ours[0]["image"], theirs[0]["image"])
        if ours[2] or ours[3]:
            assert np.array_equal(first.reset()[0]["image"], second.reset()[0]["image"])


@pytest.mark.parametrize("env_id", ENVS)
def test_the_specification_survives_json(env_id: str) -> None:
    spec = gym.make(env_id, image_size=64).spec
    assert spec is not None
    assert json.loads(spec.to_json())["kwargs"] == {"image_size": 64}
    assert EnvSpec.from_json(spec.to_json()).make().unwrapped.image_size == 64  # type: ignore[attr-defined]


@pytest.mark.parametrize("env_id", ENVS)
def test_nothing_is_written_to_the_output(env_id: str, capfd: pytest.CaptureFixture[str]) -> None:
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(0)
    env.render()
    env.close()
    assert capfd.readouterr() == ("", "")


def test_registering_twice_changes_nothing() -> None:
    before = dict(gym.registry)
    register_envs()
    assert dict(gym.registry) == before


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    assert {"ENVS", "testing", "wrappers"} <= set(dir(gtr_envs))
    with pytest.raises(AttributeError, match="has no attribute 'wrapper'"):
        _ = gtr_envs.wrapper


class UnseededEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    def _begin(self, options: Any) -> None:
        self._np_random = np.random.default_rng()
        super()._begin(options)


class FixedEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    def _begin(self, options: Any) -> None:
        super()._begin(options or {"cards": ["H2", "H3", "H4", "H5"]})


class GlobalGeneratorEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    def _play(self, action: str) -> Outcome:
        np.random.random()  # noqa: NPY002 - the breach
        return super()._play(action)


class LiveListEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    def _facts(self) -> dict[str, Any]:
        return super()._facts() | {"formula": self._formula}


class SpoiledGameEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    def _facts(self) -> dict[str, Any]:
        self._told = list(self._numbers)
        return super()._facts() | {"numbers": self._told}

    def _play(self, action: str) -> Outcome:
        return super()._play(action if self._told else "=")


class OneStepEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    def _play(self, action: str) -> Outcome:
        return super()._play(action)._replace(terminated=True)


class ForgetfulCopyEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_formula": ["("]}


class WrongLegalEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    def _play(self, action: str) -> Outcome:
        return super()._play(action)._replace(legal=True)


class LosingExpertEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    def expert_action(self) -> str | None:
        return self.legal_actions[-1]

    def expert_thought(self, way: Any = None) -> Any:
        return super().expert_thought(way)._replace(action=self.expert_action())


class HelplessExpertEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    def expert_action(self) -> str | None:
        return None


class AbsentMindedExpertEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    def expert_thought(self, way: Any = None) -> Any:
        return super().expert_thought(way)._replace(action="(")


class GuessingEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    def action_from_text(self, text: str) -> int | IllegalText:
        action = super().action_from_text(text)
        return action if isinstance(action, int) else 14


class EternalEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    @property
    def is_running(self) -> bool:
        return True


class LenientOptionsEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    option_names = (*Points24Env.option_names, "no such option")

    def _begin(self, options: Any) -> None:
        super()._begin({name: value for name, value in options.items() if name == "numbers"})


class SmallFrameEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    def render(self) -> Any:
        return self._draw(self.image_size)


class LongTextEnv(Points24Env):
    __doc__ = Points24Env.__doc__

    def _text(self) -> str:
        return "x" * 1000


class UndocumentedEnv(Points24Env):
    """Just a game."""


BREACHES = [
    (UnseededEnv, "checker is content"),
    (FixedEnv, "different seeds differ"),
    (GlobalGeneratorEnv, "global generator"),
    (LiveListEnv, "never changed later.*a later step"),
    (SpoiledGameEnv, "never changed later.*a spoiled info"),
    (OneStepEnv, "never changed later.*first action that does not end"),
    (ForgetfulCopyEnv, "A copy of an environment"),
    (WrongLegalEnv, "whether an action was legal"),
    (LosingExpertEnv, "The expert plays legal actions.*the expert lost"),
    (AbsentMindedExpertEnv, "the expert thought"),
    (HelplessExpertEnv, "won none of ten"),
    (GuessingEnv, "names no action"),
    (EternalEnv, "after the end"),
    (LenientOptionsEnv, "unknown reset option"),
    (SmallFrameEnv, "Frames are square"),
    (LongTextEnv, "checker is content"),
    (UndocumentedEnv, "headings"),
]


@pytest.fixture
def register() -> Iterator[Any]:
    """Register a class under a passing id."""

    def as_breach(env_class: type[Points24Env]) -> None:
        gym.register("Breach-v0", f"{env_class.__module__}:{env_class.__qualname__}")

    yield as_breach
    del gym.registry["Breach-v0"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("env_class", "promise"), BREACHES, ids=[env_class.__name__ for env_class, _ in BREACHES])
def test_a_breach_is_found(env_class: type[Points24Env], promise: str, register: Any) -> None:
    register(env_class)
    with pytest.raises(ContractError, match=promise):
        check_vision_text_env("Breach-v0", image_size=64)


def test_every_check_says_what_is_promised() -> None:
    assert all(check.__doc__ for check in CHECKS)


def test_an_environment_of_another_kind_is_refused() -> None:
    with pytest.raises(ContractError, match="expected a VisionTextEnv"):
        check_vision_text_env("CartPole-v1")
