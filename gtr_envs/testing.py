"""Decides what every vision-text environment must keep to: a contract suite for the authors of environments."""

from __future__ import annotations

import copy
import inspect
import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from gtr_envs.core import IllegalText, VisionTextEnv
from gtr_envs.errors import ContractError
from gtr_envs.wrappers import TextAction

HEADINGS = (
    "Description",
    "Action Space",
    "Observation Space",
    "Rewards",
    "Starting State",
    "Episode End",
    "Information",
    "Arguments",
    "Prompt",
    "Known limits",
    "References",
    "Version History",
)
"""Headings of an environment's page, which is the docstring of its class, in this order."""
N_STEPS = 50
"""Steps of the comparison of two copies."""

MakeEnv = Callable[..., "gymnasium.Env[Any, Any]"]


def check_vision_text_env(env_id: str, **kwargs: Any) -> None:
    """Check that an environment keeps to the contract of vision-text environments.

    Args:
        env_id: A registered id, or ``"module:id"``.
        **kwargs: Arguments of the environment's constructor; the render mode is chosen by the suite.

    Raises:
        ContractError: At the first promise that is broken; the message names the promise.
    """
    make = partial(gymnasium.make, env_id, **kwargs)
    for check in CHECKS:
        try:
            check(make)
        except Exception as error:
            promise = (inspect.getdoc(check) or check.__name__).splitlines()[0]
            raise ContractError(f"{env_id} breaks the promise {promise!r}: {error}") from error


def _inner(env: gymnasium.Env[Any, Any]) -> VisionTextEnv:
    """The innermost environment."""
    inner = env.unwrapped
    _expect(isinstance(inner, VisionTextEnv), f"expected a VisionTextEnv, got {inner!r}")
    return inner  # type: ignore[return-value]


def _expect(holds: object, message: str) -> None:
    """Raise unless a condition holds."""
    if not holds:
        raise ContractError(message)


def _same(left: Any, right: Any) -> bool:
    """Compare observations and infos, arrays by value."""
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    return bool(np.array_equal(left, right)) and type(left) is type(right)


def _random_walk(env: gymnasium.Env[Any, Any], seed: int, n_steps: int = N_STEPS) -> list[Any]:
    """Play seeded random actions, and return everything the environment said."""
    rng = np.random.default_rng(seed)
    said: list[Any] = [env.reset(seed=seed)]
    for _ in range(n_steps):
        said.append(env.step(rng.integers(_inner(env).action_space.n)))
        if said[-1][2] or said[-1][3]:
            said.append(env.reset())
    return said


def _check_gymnasium(make: MakeEnv) -> None:
    """Gymnasium's own checker is content and warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(_inner(make()), skip_render_check=True)


def _check_seed(make: MakeEnv) -> None:
    """The seed decides everything, and different seeds differ."""
    first, second = _random_walk(make(), 7), _random_walk(make(), 7)
    _expect(all(map(_equal_steps, first, second)), "two copies with seed 7 differ")
    starts = [make().reset(seed=seed)[0] for seed in range(5)]
    _expect(not all(_same(starts[0], start) for start in starts), "seeds 0 to 4 start alike")


def _check_global_generator(make: MakeEnv) -> None:
    """The global generator of NumPy is left alone."""
    before = copy.deepcopy(np.random.get_state())  # noqa: NPY002 - the old generator is what is looked at
    _random_walk(make(), 3)
    after = np.random.get_state()  # noqa: NPY002
    _expect(all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)), "its state has changed")


def _check_copies(make: MakeEnv) -> None:
    """What is handed out is never changed later, and changing it changes nothing."""
    env, untouched = make(), make()
    first = _played_once(env)
    kept = copy.deepcopy(first)
    _expect(_equal_steps(kept, _played_once(untouched)), "two copies play differently")
    action = int(np.flatnonzero(_inner(untouched).action_mask)[0])
    env.step(action)
    _expect(_equal_steps(first, kept), "a later step changed it")
    _spoil(_played_once(env))
    _expect(_equal_steps(env.step(action), untouched.step(action)), "a spoiled info or picture changed the game")


def _played_once(env: gymnasium.Env[Any, Any]) -> tuple[Any, ...]:
    """Begin an episode and play a legal action that does not end it; the same one at every call."""
    for seed in range(5, 25):
        for action in range(len(_inner(env).action_tokens)):
            env.reset(seed=seed)
            if _inner(env).action_mask[action]:
                step = env.step(action)
                if not step[2] and not step[3]:
                    return step
    raise ContractError("expected a first action that does not end the episode, found none with seeds 5 to 24")


def _spoil(step: tuple[Any, ...]) -> None:
    """Overwrite everything in a step that can be written to."""
    for value in step[0].values():
        if isinstance(value, np.ndarray):
            value[...] = 0
    for value in step[-1].values():
        if isinstance(value, list):
            value.clear()
        elif isinstance(value, np.ndarray):
            value[...] = 0


def _equal_steps(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    """Compare what two resets or steps returned."""
    return _same(dict(enumerate(left)), dict(enumerate(right)))


def _check_twin(make: MakeEnv) -> None:
    """A copy of an environment goes on where it was."""
    env = _inner(make())
    env.reset(seed=11)
    twin = copy.deepcopy(env)
    action = int(np.flatnonzero(env.action_mask)[0])
    _expect(_equal_steps(env.step(action), twin.step(action)), "the copy played differently")


def _check_spec(make: MakeEnv) -> None:
    """The specification can be written as JSON and read back."""
    spec = make().spec
    _expect(spec is not None and EnvSpec.from_json(spec.to_json()) == spec, f"got another one for {spec}")


def _check_info(make: MakeEnv) -> None:
    """Info tells the legal actions, whether an action was legal, and the success at the end only."""
    env = make()
    inner = _inner(env)
    _, info = env.reset(seed=2)
    for _ in range(N_STEPS):
        legal = [token for token, mark in zip(inner.action_tokens, info["action_mask"], strict=True) if mark]
        _expect(legal == info["legal_actions"] and legal, f"mask {legal} and legal actions {info['legal_actions']}")
        action = int(inner.np_random.integers(len(inner.action_tokens)))
        # Looked up before the step: in some environments every state has other actions.
        was_legal = inner.action_tokens[action] in legal
        _, _, terminated, truncated, after = env.step(action)
        _expect(after["legal"] is was_legal, f"legal is {after['legal']!r}")
        _expect(("success" in after) is (terminated or truncated), "success must come at the end and only there")
        info = env.reset()[1] if terminated or truncated else after


def _check_expert(make: MakeEnv) -> None:
    """The expert plays legal actions, thinks of the one it plays, and wins, in a game of chance now and then."""
    env = make()
    inner = _inner(env)
    _expect(inner.instructions.strip(), "instructions are empty")
    n_wins = 0
    for seed in range(10):
        env.reset(seed=seed)
        success = False
        while (action := inner.expert_action()) is not None:
            _expect(action in inner.legal_actions, f"the expert played {action!r} of {inner.legal_actions}")
            # Written thoughts are an offer; where they are made, they lead to what the expert does.
            thought = inner.expert_thought() if hasattr(inner, "expert_thought") else None
            if thought is not None:
                _expect(thought.action == action and thought.words, f"the expert thought {thought}, played {action!r}")
            _, _, terminated, truncated, info = env.step(inner.action_from_text(action))
            if terminated or truncated:
                success = info["success"]
                _expect(success or not inner.expert_always_wins, "the expert lost")
                break
        n_wins += success
    _expect(n_wins, "the expert won none of ten episodes")


def _check_illegal_text(make: MakeEnv) -> None:
    """Text that names no action is played as an illegal action, and actions outside the space are refused."""
    for text in ("", "no such action", "\n", "\N{SNOWMAN}" * 1000):
        env = TextAction(make())
        env.reset(seed=1)
        _, reward, _, _, info = env.step(text)
        _expect(float(reward) < 0 and info["legal"] is False, f"{text[:20]!r} got {reward} and legal {info['legal']}")
    inner = _inner(make())
    inner.reset(seed=1)
    _expect(isinstance(inner.action_from_text("no such action"), IllegalText), "a name was guessed")
    for action in (-1, len(inner.action_tokens), 0.5, None):
        _expect_error(gymnasium.error.InvalidAction, partial(inner.step, action), f"action {action!r}")


def _check_order(make: MakeEnv) -> None:
    """Stepping before a reset, after the end or after closing is refused, and closing twice is allowed."""
    env = _inner(make())
    _expect_error(gymnasium.error.ResetNeeded, partial(env.step, 0), "a step before reset")
    env.reset(seed=0)
    for action in range(10_000):
        if any(env.step(action % len(env.action_tokens))[2:4]):
            break
    _expect_error(gymnasium.error.ResetNeeded, partial(env.step, 0), "a step after the end")
    env.close()
    env.close()
    _expect_error(gymnasium.error.ClosedEnvironmentError, partial(env.step, 0), "a step after close")
    _expect_error(gymnasium.error.ClosedEnvironmentError, env.reset, "a reset after close")


def _check_options(make: MakeEnv) -> None:
    """An unknown reset option is refused with the known names."""
    _expect_error(ValueError, partial(make().reset, options={"no such option": 1}), "an unknown option")


def _check_frames(make: MakeEnv) -> None:
    """Frames are square uint8 RGB pictures of the render size."""
    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    frame, size = env.render(), _inner(env).render_size
    _expect(isinstance(frame, np.ndarray), f"expected an array, got {type(frame)}")
    _expect(frame.shape == (size, size, 3) and frame.dtype == np.uint8, f"got {frame.dtype} {frame.shape}")  # type: ignore[union-attr]


def _check_vectors(make: MakeEnv) -> None:
    """Text survives the synchronous and the asynchronous vector environment."""
    env = TextAction(make())
    env.reset(seed=1)
    action = _inner(env).legal_actions[0]
    expected = env.step(action)[0].get("text")
    if expected is None:
        return
    makers = [lambda: TextAction(make())] * 2
    for vector in (SyncVectorEnv(makers), AsyncVectorEnv(makers, shared_memory=False)):
        vector.reset(seed=[1, 1])
        texts = vector.step((action, action))[0]["text"]
        vector.close()
        _expect(tuple(texts) == (expected, expected), f"{type(vector).__name__} gave {texts} for {expected!r}")


def _check_page(make: MakeEnv) -> None:
    """The class docstring has the headings of an environment's page, in order."""
    page = inspect.getdoc(type(_inner(make()))) or ""
    found = [heading for heading in re.findall(r"^## (.+)$", page, flags=re.MULTILINE) if heading in HEADINGS]
    _expect(found == list(HEADINGS), f"expected {list(HEADINGS)}, found {found}")


def _expect_error(kind: type[Exception], call: Callable[[], object], what: str) -> None:
    """Raise unless a call raises an error of a kind."""
    try:
        call()
    except kind:
        return
    raise ContractError(f"{what} was accepted; expected {kind.__name__}")


CHECKS: tuple[Callable[[MakeEnv], None], ...] = (
    _check_gymnasium,
    _check_seed,
    _check_global_generator,
    _check_copies,
    _check_twin,
    _check_spec,
    _check_info,
    _check_expert,
    _check_illegal_text,
    _check_order,
    _check_options,
    _check_frames,
    _check_vectors,
    _check_page,
)
"""All promises; the first line of each function says what is promised."""
