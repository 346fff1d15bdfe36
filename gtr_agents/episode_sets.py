"""Named, versioned sets of episodes to measure models on: each fixes its environment, its rules and its reset seeds.

A set says which tasks are played, and by which rules; how they are shown (size of the picture, notes, style) belongs to
the model. The SHA-256 fingerprint of a set covers its seeds and what was dealt for them. It stands here, so that an
environment that deals something else is noticed; then the set gets a new version and the old name is retired.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from gtr_agents.algorithms.base import text_env_maker
from gtr_agents.errors import EpisodeSetError, unknown_name
from gtr_agents.evaluation import Split, episode_seeds

Facts = Mapping[str, Any]
"""What tells tasks apart, as JSON holds it."""


@dataclass(frozen=True, slots=True)
class Dealt:
    """One episode of a set."""

    seed: int
    """Its reset seed."""
    facts: Facts
    """Which task it is."""


@dataclass(frozen=True, slots=True)
class EpisodeSet:
    """Episodes that are the same for every model and in every release."""

    name: str
    """``task/what-vN``."""
    about: str
    """What is in it, in a line."""
    env: str
    """Id of the environment."""
    kwargs: Mapping[str, Any]
    """Arguments that decide tasks and rules; none that decides how they look."""
    seeds: range
    """Reset seeds, in order."""
    facts_of: Callable[[Facts], dict[str, Any]]
    """From the ``info`` at the start of an episode to the facts of its task."""
    episodes: int
    """How many episodes there are."""
    fingerprint: str
    """SHA-256 of them all, hexadecimal."""
    only: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Fact to the values that are kept; the other seeds are left out."""
    by: str = ""
    """Fact by which results are split up; empty for none."""
    told: tuple[str, ...] = ()
    """Arguments, beyond those of every game, that decide how a task is told; they belong to the model."""

    def env_kwargs(self, env: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Join the rules of the set with the way a model is used to see tasks.

        Args:
            env: The environment that a model is used to.
            kwargs: Its arguments there; those that decide tasks or rules are left out.

        Returns:
            Arguments for ``gymnasium.make``.
        """
        from gtr_envs.core import ViewOptions

        seen = (*ViewOptions.__annotations__, *(self.told if env == self.env else ()))
        return {name: value for name, value in kwargs.items() if name in seen} | dict(self.kwargs)

    def deal(self, n: int | None = None) -> list[Dealt]:
        """Reset the environment with the seeds and note what is dealt.

        Args:
            n: The first so many episodes; None for all.

        Returns:
            Seeds and facts, in order.

        Raises:
            EpisodeSetError: If all were dealt, and they are not those of the set.
        """
        wanted = self.episodes if n is None else min(n, self.episodes)
        env = text_env_maker(self.env, {**self.kwargs, "image_size": 64})()
        dealt: list[Dealt] = []
        for seed in self.seeds:
            if len(dealt) == wanted:
                break
            facts = self.facts_of(env.reset(seed=seed)[1])
            if all(facts[name] in values for name, values in self.only.items()):
                dealt.append(Dealt(seed, facts))
        env.close()
        self.check(dealt)
        return dealt

    def first_seeds(self, n: int | None = None) -> list[int]:
        """Seeds of the first ``n`` episodes, None for all; the environment is asked only if some seeds are left out."""
        if self.only:
            return [episode.seed for episode in self.deal(n)]
        return list(self.seeds[: self.episodes if n is None else n])

    def check(self, dealt: Sequence[Dealt]) -> None:
        """Compare episodes with the fingerprint; fewer than all cannot be compared and pass.

        Raises:
            EpisodeSetError: If they are others.
        """
        if len(dealt) == self.episodes and fingerprint(dealt) != self.fingerprint:
            raise EpisodeSetError(
                f"{self.env} does not deal the episodes of {self.name}: their fingerprint is "
                f"{fingerprint(dealt)[:12]}, expected {self.fingerprint[:12]}. Results would not be comparable with "
                "those of other releases. Is another package registered under this id, or was the game changed? A "
                "changed game needs a new version of the set."
            )


def fingerprint(dealt: Iterable[Dealt]) -> str:
    """Hash episodes, in order.

    Args:
        dealt: Seeds and facts.

    Returns:
        SHA-256, hexadecimal.
    """
    digest = hashlib.sha256()
    for episode in dealt:
        digest.update(json.dumps([episode.seed, episode.facts], sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


# --- what tells tasks apart -------------------------------------------------------------------------------------------


def _points24(info: Facts) -> dict[str, Any]:
    from gtr_envs.cards.difficulty import difficulty

    return {"cards": info["cards"], "band": difficulty(info["numbers"]).band}


def _ezpoints(info: Facts) -> dict[str, Any]:
    return {"cards": info["cards"], "operator": info["operator"]}


def _number_line(info: Facts) -> dict[str, Any]:
    current, target = int(info["current"]), int(info["target"])
    return {"current": current, "target": target, "distance": abs(target - current)}


def _blackjack(info: Facts) -> dict[str, Any]:
    return {"player_cards": info["player_cards"], "dealer_cards": info["dealer_cards"]}


def _alfworld(info: Facts) -> dict[str, Any]:
    return {name: info[name] for name in ("game", "scene", "task", "task_type")}


# --- the table --------------------------------------------------------------------------------------------------------

N_CARDS_EPISODES, N_HOUSEHOLD_EPISODES, N_TYPE_EPISODES = 500, 240, 100
"""Episodes of a set of cards, of a set of households, and of one type of household task."""
TASK_TYPES = {
    "pick": "pick_and_place_simple",
    "look": "look_at_obj_in_light",
    "clean": "pick_clean_then_place_in_recep",
    "heat": "pick_heat_then_place_in_recep",
    "cool": "pick_cool_then_place_in_recep",
    "pick2": "pick_two_obj_and_place",
}
"""Short name, as papers have it, to ALFWorld's type of task."""
FINGERPRINTS: dict[str, tuple[int, str]] = {
    "points24/test-v1": (500, "7e3ae5655858d113e3b37dd950dac2e58ee40df97897e2888daa99a91b382770"),
    "points24/validation-v1": (500, "9232fd658855938ef6ff879c54cfe5e70f5815252ab49fdbe279d8d5bf92d285"),
    "points24/solvable-v1": (354, "d4f5ffb134411e7fd513c1e16c428555f292ce2e0c9542aaf52736b4c71f2fca"),
    "points24/easy-v1": (142, "189f7df38e2432e6bae7f89ef068d49935dab6a38e00b415a88d63aa0f691fa8"),
    "points24/medium-v1": (95, "5eb5a4d442645196a64062899c7cc462dbee041363463ede69b0650c04bd2e25"),
    "points24/hard-v1": (108, "4e2e4ddb5db8a707d80ac7827a54b87ee90a5e5b9940f922fc6631784a7c9395"),
    "ezpoints/test-v1": (500, "8a28b2386f5fac62c8133a2827cc674dc0cc7769eadbb1f69e91a80208af3946"),
    "ezpoints/balanced-v1": (500, "3d6aa45ff02d0ce8e72deece6ab4c1af677379b7ca5d1d62fa27e6b8961c9aff"),
    "number_line/test-v1": (500, "52480dd5df9a0310672fa87eba260c4ad166eef8bb4233a31d65890b078465ff"),
    "number_line/near-v1": (298, "834ceca8080383ac00b23abc2031848407399f64e971709ac0eb5c67ffd95929"),
    "number_line/far-v1": (202, "d1cf79c6bb6131b2e90b9d1b66d584dae7980d1c7fbcc69fa28848e5570a8388"),
    "blackjack/test-v1": (500, "a5077e4da65a98ac8ca76859ada36d9c1477a766e41378a5823bbf192a341f2a"),
    "alfworld/valid_unseen-v1": (240, "790f88b33d026347faf7bed9a28dec9d00201a7143e589e19bf975b89ab754fd"),
    "alfworld/valid_unseen/pick-v1": (100, "677f3abbe97a88ea8833998a7edb39335b994f0b4c4d4b00abdcb3eb9a007f10"),
    "alfworld/valid_unseen/look-v1": (100, "1c7898e0ac19819266bca55f9a562d522ead0f145a21c86a91e3596752390ef4"),
    "alfworld/valid_unseen/clean-v1": (100, "3eee6e982cbf2405e0eb8fd1fdb6eae49cc640d4b755c9cebe7ee1dfe8586891"),
    "alfworld/valid_unseen/heat-v1": (100, "3179d3d49017a846af7d1db1664c8db26a52820bab540e41e97a2bc786f93ed6"),
    "alfworld/valid_unseen/cool-v1": (100, "701ae959fe6a8637913f77c6a693d15d4f108c6fb0f06f6ec71fec6a2bdf80b1"),
    "alfworld/valid_unseen/pick2-v1": (100, "c9ed73322b8c5a2b6ac793d3fcda4fd15f6f26758f0c152d2a26fc9e0cee9063"),
    "alfworld/valid_seen-v1": (240, "0fbb646bca6165355ded1b5eca82a0e99e70086c1db85b61e7eb4dad34ece8d0"),
    "alfworld/valid_seen/pick-v1": (100, "c5135c3a0f9cca1f36c47223fc17258e50980af58d7aade5c4a3a0a3ef8463a9"),
    "alfworld/valid_seen/look-v1": (100, "7439891d4e917d2834a2bacbf1d2443d330ad5b766d224613ed567ffde3ba1e8"),
    "alfworld/valid_seen/clean-v1": (100, "911e386eb4bab2f73b8be73485f6b1f59ae5a9117b3d8da09ad04a44205c6012"),
    "alfworld/valid_seen/heat-v1": (100, "852cbd2992183a57cbda51c9c287e2f305d655648706fddfee193f4801585680"),
    "alfworld/valid_seen/cool-v1": (100, "5fa432ad5c257a90f2d2731e270bd9cfe3552702a566bfa792cdf1895fbaf5b8"),
    "alfworld/valid_seen/pick2-v1": (100, "04fd6da2c70316e9ee4c65b33ad783c083e606c601343498b3e04cfbf0d42763"),
}
"""Name of a set to its number of episodes and its fingerprint. Never change an entry: add a version."""


def _described() -> Iterable[tuple[str, dict[str, Any]]]:
    """Every set without its number of episodes and fingerprint."""
    splits: tuple[Split, ...] = ("test", "validation")
    seeds = {split: episode_seeds(split, N_CARDS_EPISODES) for split in splits}
    test = {"seeds": seeds["test"]}

    hands = {"env": "Points24-v0", "kwargs": {"deal": "any"}, "facts_of": _points24, "by": "band"}
    yield "points24/test-v1", hands | test | {"about": "hands as dealt; 146 cannot be won"}
    other = {"seeds": seeds["validation"], "about": "other hands, for choosing settings"}
    yield "points24/validation-v1", hands | other
    winnable = {"only": {"band": ("easy", "medium", "hard", "fractions")}, "about": "of test-v1: those that can be won"}
    yield "points24/solvable-v1", hands | test | winnable
    meanings = {
        "easy": "no brackets needed, more than 12 solutions",
        "medium": "brackets needed, or at most 12 solutions",
        "hard": "two pairs of brackets needed, or one and at most 12 solutions",
    }
    for band, meaning in meanings.items():
        yield f"points24/{band}-v1", hands | test | {"only": {"band": (band,)}, "about": f"of test-v1: {meaning}"}

    pairs = {"env": "EZPoints-v0", "facts_of": _ezpoints, "by": "operator"} | test
    yield "ezpoints/test-v1", pairs | {"kwargs": {"deal": "published"}, "about": "as published: 1/6 need a product"}
    yield "ezpoints/balanced-v1", pairs | {"kwargs": {"deal": "balanced"}, "about": "half of the hands need a product"}

    line = {"env": "NumberLine-v0", "kwargs": {}, "facts_of": _number_line, "by": "distance"} | test
    yield "number_line/test-v1", line | {"about": "numbers as they are drawn"}
    yield "number_line/near-v1", line | {"only": {"distance": (1, 2)}, "about": "of test-v1: one or two moves"}
    yield "number_line/far-v1", line | {"only": {"distance": (3, 4, 5)}, "about": "of test-v1: three to five moves"}

    blackjack = {"env": "VisualBlackjack-v0", "kwargs": {}, "facts_of": _blackjack} | test
    yield "blackjack/test-v1", blackjack | {"about": "the best player wins 43 %"}

    told = ("history", "notes", "scene_text", "labels")
    home = {"env": "ALFWorld-v0", "facts_of": _alfworld, "by": "task_type", "told": told}
    for split, rooms in (("valid_unseen", "unseen rooms"), ("valid_seen", "rooms of training")):
        rules = {"data": "embedded", "split": split, "max_steps": 50}
        both = {"seeds": episode_seeds("test", N_HOUSEHOLD_EPISODES), "about": f"embedded games, {rooms}, all types"}
        yield f"alfworld/{split}-v1", home | both | {"kwargs": rules}
        for short, task_type in TASK_TYPES.items():
            one = {"seeds": episode_seeds("test", N_TYPE_EPISODES), "about": f"{rooms}: {task_type}"}
            yield f"alfworld/{split}/{short}-v1", home | one | {"kwargs": rules | {"task_types": [task_type]}}


def episode_sets() -> dict[str, EpisodeSet]:
    """Every set by its name, in the order of the tasks."""
    return {
        name: EpisodeSet(name=name, episodes=FINGERPRINTS[name][0], fingerprint=FINGERPRINTS[name][1], **parts)
        for name, parts in _described()
    }


def find_sets(names: Iterable[str]) -> list[EpisodeSet]:
    """Look sets up.

    Args:
        names: Names, or patterns such as ``points24/*``.

    Returns:
        The sets, each once, in the order of the names.

    Raises:
        UnknownNameError: If a name or pattern fits no set.
    """
    known = episode_sets()
    found: dict[str, EpisodeSet] = {}
    for name in names:
        fitting = {key: known[key] for key in known if fnmatchcase(key, name)}
        if not fitting:
            raise unknown_name("episode set", name, known)
        found |= fitting
    return list(found.values())
