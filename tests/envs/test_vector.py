"""The batch of Points24 games says exactly what Gymnasium's synchronous vector of single games says."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv

from gtr_envs.cards.vector import Points24VectorEnv
from gtr_envs.core import IllegalText
from gtr_envs.errors import EnvironmentClosedError, InvalidActionError, OptionError, ResetNeededError, UnknownNameError
from gtr_envs.registration import ENVS, VECTOR_ENVS

MODES = list(AutoresetMode)
ARGUMENTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "solvable": {"deal": "solvable"},
    "ranks": {"face_cards": "rank"},
    "target": {"target": 12},
    "strict": {"illegal": "terminate"},
    "short": {"max_tokens": 8},
    "long": {"max_tokens": 60},
    "held out": {"holdout": [(rank, rank, rank, rank) for rank in range(1, 14)]},
    "readable": {"image_size": 180},
    "image": {"observe": "image"},
    "text": {"observe": "text"},
}


def make_pair(n: int, mode: AutoresetMode, **arguments: Any) -> tuple[Points24VectorEnv, VectorEnv[Any, Any, Any]]:
    """The batch, and the synchronous vector of the same games."""
    arguments = {"image_size": 64} | arguments
    batch = gym.make_vec("Points24-v0", n, "vector_entry_point", autoreset_mode=mode, **arguments)
    assert isinstance(batch, Points24VectorEnv)
    sync = gym.make_vec("Points24-v0", n, "sync", vector_kwargs={"autoreset_mode": mode}, **arguments)
    return batch, sync


def assert_same(ours: Any, theirs: Any) -> None:
    """Compare two values of any kind, types included."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, np.ndarray):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if ours.dtype == object:
            assert_same(ours.tolist(), theirs.tolist())
        else:
            np.testing.assert_array_equal(ours, theirs)
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for mine, its in zip(ours, theirs, strict=True):
            assert_same(mine, its)
    else:
        assert ours == theirs


def expert_or_random(batch: Points24VectorEnv, rng: np.random.Generator, share: float) -> np.ndarray[Any, Any]:
    """The expert's action with a probability, any action otherwise."""
    actions = rng.integers(batch.single_action_space.n, size=batch.num_envs)  # type: ignore[attr-defined]
    for i, env in enumerate(batch.envs):
        token = env.expert_action() if rng.random() < share else None
        actions[i] = actions[i] if token is None else env.action_tokens.index(token)
    return actions


def play_both(batch: Points24VectorEnv, sync: Any, share: float, n_steps: int, options: Any = None) -> dict[str, int]:
    """Play the same actions in both and compare everything; count what happened."""
    rng = np.random.default_rng(0)
    assert_same(batch.reset(seed=5, options=options), sync.reset(seed=5, options=options))
    seen = {"wins": 0, "ends": 0, "truncations": 0}
    for _ in range(n_steps):
        actions = expert_or_random(batch, rng, share)
        ours = batch.step(actions)
        assert_same(ours, sync.step(actions))
        ended = ours[2] | ours[3]
        seen["wins"] += int((ours[1] > 0).sum())
        seen["ends"] += int(ended.sum())
        seen["truncations"] += int(ours[3].sum())
        if batch.autoreset_mode is AutoresetMode.DISABLED and ended.any():
            mask = {"reset_mask": ended}
            assert_same(batch.reset(options=dict(mask)), sync.reset(options=dict(mask)))
    return seen


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=list(ARGUMENTS))
def test_every_step_is_that_of_the_synchronous_vector(mode: AutoresetMode, arguments: dict[str, Any]) -> None:
    for share in (0.0, 0.98):
        seen = play_both(*make_pair(3, mode, **arguments), share, n_steps=60)
        assert seen["ends"] >= 3
        assert seen["wins"] or not share or arguments == {"max_tokens": 8}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", [1, 2, 17])
def test_any_number_of_games_plays_alike(mode: AutoresetMode, n: int) -> None:
    seen = play_both(*make_pair(n, mode, max_tokens=12), 0.6, n_steps=120)
    assert seen["ends"] > seen["truncations"]


@pytest.mark.parametrize("n_places", [8, 60])
def test_full_formulas_are_cut_and_long_ones_shrunk_in_both(n_places: int) -> None:
    batch, sync = make_pair(2, AutoresetMode.SAME_STEP, max_tokens=n_places)
    batch.reset(seed=0)
    sync.reset(seed=0)
    opened = [14, 14]
    for _ in range(n_places + 1):
        ours = batch.step(opened)
        assert_same(ours, sync.step(opened))
    assert ours[3].all()
    assert ours[4]["final_obs"][0]["text"] == "(" * n_places
    assert ours[0]["text"] == ("", "")


@pytest.mark.parametrize("seed", [None, 3, [4, None, 9]])
def test_seeds_reach_the_games(seed: Any) -> None:
    batch, sync = make_pair(3, AutoresetMode.NEXT_STEP)
    assert_same(batch.reset(seed=11), sync.reset(seed=11))
    assert_same(batch.reset(seed=seed), sync.reset(seed=seed))
    assert batch.np_random_seed == sync.np_random_seed
    draws = [[generator.integers(1 << 30) for generator in envs.np_random] for envs in (batch, sync)]
    assert draws[0] == draws[1]


def test_options_and_masks_reach_the_games() -> None:
    batch, sync = make_pair(3, AutoresetMode.DISABLED)
    batch.reset(seed=0)
    sync.reset(seed=0)
    ended = [16, 14, 16]
    assert_same(batch.step(ended), sync.step(ended))
    options = {"reset_mask": np.array([True, False, True]), "cards": ["HT", "D6", "DQ", "S4"]}
    ours = batch.reset(seed=[7, 8, 9], options=options)
    assert "reset_mask" in options
    assert_same(ours, sync.reset(seed=[7, 8, 9], options=dict(options)))
    assert ours[0]["text"] == ("", "(", "")
    assert ours[1]["_cards"].tolist() == [True, False, True]
    assert_same(batch.step([5, 0, 5]), sync.step([5, 0, 5]))


def test_a_mask_leaves_other_ended_games_to_the_next_step() -> None:
    batch, sync = make_pair(3, AutoresetMode.NEXT_STEP)
    batch.reset(seed=0)
    sync.reset(seed=0)
    assert_same(batch.step([16, 16, 14]), sync.step([16, 16, 14]))
    mask = np.array([True, False, False])
    assert_same(batch.reset(options={"reset_mask": mask}), sync.reset(options={"reset_mask": mask}))
    ours = batch.step([14, 14, 14])
    assert_same(ours, sync.step([14, 14, 14]))
    assert ours[0]["text"] == ("(", "", "((")


def test_a_step_without_a_reset_after_the_end_is_refused_when_resets_are_off() -> None:
    batch, _ = make_pair(2, AutoresetMode.DISABLED)
    batch.reset(seed=0)
    batch.step([16, 14])
    with pytest.raises(ResetNeededError, match=r"games \[0\] have ended.*reset_mask"):
        batch.step([14, 14])
    assert batch.envs[1]._formula == ["("]


def test_spaces_and_names_are_those_of_the_synchronous_vector() -> None:
    batch, sync = make_pair(2, AutoresetMode.SAME_STEP, render_mode="rgb_array")
    for name in ("single_observation_space", "observation_space", "single_action_space", "action_space", "metadata"):
        assert_same(getattr(batch, name), getattr(sync, name))
    assert batch.render_mode == sync.render_mode
    assert batch.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observation, _ = batch.reset(seed=0)
    assert batch.observation_space.contains(observation)
    assert_same(observation, sync.reset(seed=0)[0])
    assert_same(batch.render(), sync.render())
    assert batch.spec is not None
    assert batch.spec.kwargs["num_envs"] == 2


def test_games_can_be_asked_and_set() -> None:
    batch, sync = make_pair(2, AutoresetMode.NEXT_STEP)
    for envs in (batch, sync):
        envs.reset(seed=0)
        envs.set_attr("max_tokens", 9)  # type: ignore[attr-defined]
        envs.set_attr("note", ["a", "b"])  # type: ignore[attr-defined]
    for name, arguments in [("max_tokens", ()), ("note", ()), ("expert_action", ()), ("action_from_text", ("*",))]:
        assert_same(batch.call(name, *arguments), sync.call(name, *arguments))  # type: ignore[attr-defined]
    assert batch.get_attr("note") == ("a", "b")
    with pytest.raises(OptionError, match="value of note for each of 2 games, got 3"):
        batch.set_attr("note", ["a", "b", "c"])


def test_texts_can_be_played_beside_indices() -> None:
    batch, sync = make_pair(2, AutoresetMode.NEXT_STEP)
    actions = [IllegalText("I play six"), np.int64(14)]
    assert_same(batch.reset(seed=1), sync.reset(seed=1))
    ours = batch.step(actions)
    assert_same(ours, sync.step(actions))
    assert ours[4]["legal"].tolist() == [False, True]


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([14], "Expected 2 actions"),
        ([14, 17], "index from 0 to 16, got 17"),
        ([14, -1], "got -1"),
        (np.array([14.0, 3.0]), "got .*14.0"),
        ([14, "6"], "TextAction"),
    ],
)
def test_a_wrong_action_is_refused_before_any_game_moves(actions: Any, message: str) -> None:
    batch, _ = make_pair(2, AutoresetMode.NEXT_STEP)
    batch.reset(seed=0)
    with pytest.raises(InvalidActionError, match=message):
        batch.step(actions)
    assert [env._formula for env in batch.envs] == [[], []]


def test_the_action_of_a_game_that_begins_anew_is_not_looked_at() -> None:
    batch, sync = make_pair(2, AutoresetMode.NEXT_STEP)
    batch.reset(seed=0)
    sync.reset(seed=0)
    for actions in ([16, 14], [-1, 14]):
        assert_same(batch.step(actions), sync.step(actions))


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        ([True, False], r"bool \[2\]"),
        (np.array([True]), r"bool \[2\]"),
        (np.array([1, 0]), "NumPy array"),
        (np.array([False, False]), "at least one True"),
    ],
)
def test_an_unusable_mask_is_refused(mask: Any, told: str) -> None:
    batch, _ = make_pair(2, AutoresetMode.DISABLED)
    batch.reset(seed=0)
    with pytest.raises(OptionError, match=told):
        batch.reset(options={"reset_mask": mask})


def test_misuse_is_told() -> None:
    batch, _ = make_pair(2, AutoresetMode.NEXT_STEP)
    with pytest.raises(ResetNeededError):
        batch.step([14, 14])
    with pytest.raises(ResetNeededError, match=r"games \[1\] never began"):
        batch.reset(options={"reset_mask": np.array([True, False])})
    for seed in ([1], "12", 1.5):
        with pytest.raises(OptionError, match="Expected seed"):
            batch.reset(seed=seed)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="Unknown reset option"):
        batch.reset(options={"hand": 1})
    with pytest.raises(UnknownNameError, match=r"Unknown argument.*max_episode_steps"):
        gym.make_vec("Points24-v0", 2, max_episode_steps=9)
    with pytest.raises(UnknownNameError, match=r"autoreset_mode.*Did you mean 'NextStep'"):
        Points24VectorEnv(2, autoreset_mode="Next")
    with pytest.raises(OptionError, match="num_envs"):
        Points24VectorEnv(0)


def test_a_closed_batch_refuses_further_use() -> None:
    batch, _ = make_pair(2, AutoresetMode.NEXT_STEP)
    batch.reset(seed=0)
    batch.close()
    batch.close()
    with pytest.raises(EnvironmentClosedError):
        batch.reset()
    with pytest.raises(EnvironmentClosedError):
        batch.step([14, 14])


def test_what_is_handed_out_is_never_changed_later() -> None:
    batch, untouched = (Points24VectorEnv(3, image_size=64, autoreset_mode="SameStep") for _ in range(2))
    untouched.reset(seed=2)
    first = batch.reset(seed=2)
    kept = copy.deepcopy(first)
    for actions in ([14, 14, 16], [16, 14, 14]):
        said = batch.step(actions)
        assert_same(said, untouched.step(actions))
        spoil(said)
    assert_same(first, kept)


def spoil(said: Any) -> None:
    """Overwrite everything that can be written to."""
    if isinstance(said, dict | list | tuple):
        for value in said.values() if isinstance(said, dict) else said:
            spoil(value)
        if isinstance(said, list):
            said.clear()
    elif isinstance(said, np.ndarray):
        if said.dtype == object:
            spoil(said.tolist())
        said[...] = 0


def test_pictures_are_shared_only_on_request() -> None:
    shared, copied = (Points24VectorEnv(2, image_size=64, copy=copy) for copy in (False, True))
    first, own = shared.reset(seed=0)[0]["image"], copied.reset(seed=0)[0]["image"]
    later, newer = shared.step([14, 14])[0]["image"], copied.step([14, 14])[0]["image"]
    assert later is first
    assert not np.shares_memory(own, newer)
    np.testing.assert_array_equal(first, newer)


@pytest.mark.parametrize("observe", ["both", "text"])
def test_a_copied_batch_goes_on_where_it_was(observe: str) -> None:
    batch = Points24VectorEnv(2, image_size=64, observe=observe)
    batch.reset(seed=0)
    batch.step([14, 16])
    twins = [pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch)]  # noqa: S301 - made on this line
    for _ in range(3):
        ours = batch.step([14, 14])
        for twin in twins:
            assert_same(ours, twin.step([14, 14]))


@pytest.fixture
def plain_vectors() -> Iterator[dict[str, VectorEnv[Any, Any, Any]]]:
    """Both of Gymnasium's own vectors over single games."""
    vectors = {
        "sync": gym.make_vec("Points24-v0", 2, "sync", image_size=64),
        "async": gym.make_vec("Points24-v0", 2, "async", vector_kwargs={"shared_memory": False}, image_size=64),
    }
    yield vectors
    for envs in vectors.values():
        envs.close()


def test_gymnasiums_own_vectors_keep_the_text(plain_vectors: dict[str, VectorEnv[Any, Any, Any]]) -> None:
    batch = Points24VectorEnv(2, image_size=64)
    for envs in plain_vectors.values():
        options = {"numbers": [6, 6, 6, 6]}
        assert_same(batch.reset(seed=3, options=options), envs.reset(seed=3, options=options))
        for actions in ([5, 14], [10, 5], [16, 10], [0, 0]):
            ours = batch.step(actions)
            assert_same(ours, envs.step(actions))
        assert ours[0]["text"] == ("", "(6+")


def test_only_registered_ids_bring_a_vector_of_their_own() -> None:
    assert set(VECTOR_ENVS) <= set(ENVS)
    for env_id in ENVS:
        envs = gym.make_vec(env_id, 2, image_size=64)
        assert isinstance(envs, Points24VectorEnv) is (env_id == "Points24-v0")
        envs.close()
