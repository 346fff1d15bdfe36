"""Decides the household environment: what is observed, what a command pays and when an episode ends."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from gtr_envs.alfworld.backends import BACKENDS, Backend, Moment, TextBackend, ThorBackend
from gtr_envs.alfworld.commands import find_command
from gtr_envs.alfworld.expert import Explorer, Intention, intend, mistake, plan
from gtr_envs.alfworld.games import Game, find_source
from gtr_envs.alfworld.situation import Situation, in_view, look
from gtr_envs.alfworld.vocabulary import vocabulary
from gtr_envs.alfworld.wheel import TASK_TYPES
from gtr_envs.cards.thoughts import Thought
from gtr_envs.checks import checked_int
from gtr_envs.core import IllegalText, Outcome, ViewOptions, VisionTextEnv
from gtr_envs.errors import OptionError, require_known
from gtr_envs.rendering import Frame

N_ACTIONS = 96
"""More commands than ever are admissible at once; the largest rooms have 56."""
WIN_REWARD = 50.0
"""Paid for the command that does the task, as in the papers."""
PENALTY = -1.0
"""Paid for text that is no admissible command."""
MAX_TEXT = 4000
"""Characters of an observation; the longest text of the engine has about 800."""
NO_COMMAND = ""
"""Name of the indices behind the last admissible command."""
REWARDS = ("increase", "published")
"""What ``reward`` takes."""


class ALFWorldEnv(VisionTextEnv):
    r"""Household tasks in ALFWorld's own engine, seen in pictures and told in words.

    ## Description

    The agent stands in a kitchen, living room, bedroom or bathroom and is given a task such as "put a clean mug in
    coffeetable". It goes from place to place, opens, takes, heats, cools, cleans, switches on and puts down. Rules,
    words and feedback are those of ALFWorld's engine (TextWorld), unchanged. The picture shows what is before it.

    Games come from ALFRED's data where they are on disk, and are made from seeds otherwise: *embedded* games have
    ALFWorld's rooms, affordances, goals and sentences, but things lie where they were drawn to lie. **Scores on
    embedded games are not comparable with published ones**; `info["source"]` says which they are.

    ## Action Space

    `Discrete(96)`: the index of a command among the admissible ones, which are sorted and different in every state;
    further indices are illegal. `gtr_envs.wrappers.TextAction` takes the commands themselves. They are matched exactly,
    apart from case, blanks and a full stop; `put cup 1 in/on shelf 2` is read as today's `move cup 1 to shelf 2`.

    ## Observation Space

    `Dict(image, text)`: `image` is uint8 `[image_size, image_size, 3]` with the places before the agent, what lies
    there, what it carries, and a map; `text` is the task, the commands so far if `history` is set, and the engine's
    feedback. With `scene_text=False` the feedback is left out, as in the papers, so that the picture must be looked at.

    ## Rewards

    | event | `reward="increase"` | `reward="published"` |
    |---|---|---|
    | the command that does the task | +50 | +50 |
    | any command | change of the share of goal conditions that hold | that share itself |
    | text or index that is no admissible command | -1 | -1 |

    The published reward pays for lingering with a task half done; the default pays nothing for it.

    ## Starting State

    A game drawn from the split and the task types by the seeded generator; `reset` takes `options={"game": key}` with a
    key of `info["game"]`. The same game again is rewound in a millisecond.

    ## Episode End

    | ending | when |
    |---|---|
    | terminated | the task is done; what would cut the episode, if `cut_reward` is paid for it |
    | truncated | after `max_steps` actions, illegal ones included; after `repeat_limit` equal actions in a row |

    ## Information

    | key | value |
    |---|---|
    | `game`, `source`, `split`, `scene` | key of the game; `"embedded"` or `"alfred"`; split; floor plan |
    | `task`, `task_type` | the task in words, fixed within an episode; one of the six types |
    | `goal_rate` | share of the goal conditions that hold, 0 to 1 |
    | `expert_steps` | how many commands the expert needs from here; None if it knows no way |
    | `legal_actions`, `action_mask` | admissible commands, sorted; int8 `[96]`, 1 for legal |
    | `legal` | whether the last action was a command, `bool`; after `step` |
    | `style` | name of the look of this episode, `str` |
    | `success` | when the episode ends: whether the task was done, `bool` |

    All lists and arrays are copies.

    ## Arguments

    | name | default | meaning |
    |---|---|---|
    | `render_mode` | None | `"human"` opens a window, `"rgb_array"` returns frames |
    | `image_size` | 300 | side of the observed picture in pixels, 64 to 1024 |
    | `render_size` | None | side of rendered frames; None takes the larger of `image_size` and 300 |
    | `observe` | `"both"` | `"image"`: no text; `"text"`: no picture; the text tells what the picture shows |
    | `split` | `"train"` | `"valid_seen"`: the same rooms, other games; `"valid_unseen"`: other rooms |
    | `task_types` | None | names of the task types that are drawn; None for all six |
    | `games` | None | how many different games are drawn, equally many of each type; None for all there are |
    | `data` | None | folder of ALFRED's data, or `"embedded"`; None for `$ALFWORLD_DATA` if it holds games |
    | `backend` | `"text"` | `"thor"`: AI2-THOR's frames, for ALFRED's games and the extra `thor`; untested on Unity |
    | `reward` | `"increase"` | or `"published"` |
    | `max_steps` | 50 | actions until the episode is cut |
    | `repeat_limit` | 0 | equal actions in a row that cut the episode; 0 for none (the papers: 5) |
    | `cut_reward` | 0 | added when the episode is cut, which then counts as terminated (the papers' training: -3) |
    | `history` | 0 | how many of the last commands are told; -1 for all |
    | `notes` | False | True tells notes instead of the feedback: what is here and carried, what was not seen yet |
    | `scene_text` | True | False leaves the engine's feedback out of the text |
    | `labels` | True | False writes no names into the picture |
    | `style` | `"classic"` | colours, letters and disorder of `gtr_envs.styles`; its faces and layouts concern cards |

    ## Prompt

    `instructions` tells what can be done; the task itself is in the text. `expert_action()` is the next command of an
    expert that knows where everything is.

    ## Known limits

    Pictures are schematic. Embedded games have no stove burners, coffee machines, toasters and hampers, desk lamps
    only, and no sentences by people. Two receptacles can share one place, where `go to` does nothing, as in ALFWorld.
    Only one engine works at a time in a process; use processes for parallel environments.

    ## References

    Shridhar et al., ALFWorld: Aligning Text and Embodied Environments for Interactive Learning, arXiv 2010.03768;
    rewards and limits of RL4VLM (arXiv 2405.10292) and GTR (arXiv 2503.08525).

    ## Version History

    * v0: first version.
    """

    option_names = ("game",)

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        split: str = "train",
        task_types: Sequence[str] | None = None,
        games: int | None = None,
        data: str | os.PathLike[str] | None = None,
        backend: str = "text",
        reward: str = "increase",
        max_steps: int = 50,
        repeat_limit: int = 0,
        cut_reward: float = 0.0,
        history: int = 0,
        notes: bool = False,
        scene_text: bool = True,
        labels: bool = True,
        **view: Unpack[ViewOptions],
    ) -> None:
        """Look for games; none is loaded. The arguments are described with the class.

        Args:
            render_mode: None, ``"human"`` or ``"rgb_array"``.
            split: ``"train"``, ``"valid_seen"`` or ``"valid_unseen"``.
            task_types: Names of task types; None for all six.
            games: At least as many as task types; None for all there are.
            data: A folder, ``"embedded"`` or None.
            backend: ``"text"`` or ``"thor"``.
            reward: ``"increase"`` or ``"published"``.
            max_steps: At least 1.
            repeat_limit: At least 0.
            cut_reward: Added to the reward of an action that cuts the episode.
            history: At least -1.
            notes: True tells what a player would note down instead of the feedback.
            scene_text: False leaves the feedback out.
            labels: False writes no names into the picture.
            **view: Size and kind of the observation; see :class:`gtr_envs.core.ViewOptions`.

        Raises:
            OptionError: If an argument cannot be used.
            GameError: If a folder was named that holds no games.
            DependencyError: If the extra ``alfworld``, or something that THOR needs, is not installed.
            ThorError: If the simulator does not start.
        """
        require_known("reward", reward, REWARDS)
        require_known("backend", backend, BACKENDS)
        self.backend = backend
        if isinstance(task_types, str):
            raise OptionError(f"Expected task_types as a list of names, got {task_types!r}.")
        self.source = find_source(data, split, tuple(task_types or TASK_TYPES), games)
        self.pays_increase = reward == "increase"
        self.max_steps = checked_int("max_steps", max_steps, least=1)
        self.repeat_limit = checked_int("repeat_limit", repeat_limit, least=0)
        self.cut_reward = float(cut_reward)
        self.history = checked_int("history", history, least=-1)
        if notes and not scene_text:
            raise OptionError("Expected scene_text=True with notes=True: the notes tell the scene.")
        self.notes, self.scene_text, self.labels = notes, scene_text, labels
        super().__init__([NO_COMMAND] * N_ACTIONS, text_length=MAX_TEXT, render_mode=render_mode, **view)
        if self.backend == "thor" and (notes or self.observe == "text"):
            raise OptionError(
                "Expected notes=False and a picture with backend='thor', which tells nothing to note down."
            )
        self._backend: Backend | None = None
        self._moment: Moment | None = None
        # What is missing is said now and not in the middle of a run.
        (ThorBackend if backend == "thor" else TextBackend).require()
        self._game: Game | None = None
        self._said: list[str] = []
        """Everything that was played, legal or not."""
        self._looked: frozenset[str] = frozenset()
        """Receptacles whose contents were in view."""

    # --- what is told -----------------------------------------------------------------------------------------------

    @property
    def instructions(self) -> str:
        """The task in words, for prompts."""
        return (
            f"You are in a room with household things. The {self.medium} shows what is before you. Do the task that "
            "you are told, with one command each turn: go to a place, open or close it, take a thing from it, move a "
            "thing to it, heat, cool or clean a thing with it, use a lamp, examine something, look at your inventory."
        )

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Pieces that texts and commands are made of, for a tokenizer that writes each as one token."""
        return vocabulary()

    @property
    def legal_actions(self) -> list[str]:
        """Admissible commands, sorted; a new list."""
        return list(self._now.admissible)

    def action_from_text(self, text: str) -> int | IllegalText:
        """Find the admissible command that a text means.

        Args:
            text: A command in either grammar; case, blanks and a full stop do not matter.

        Returns:
            Its index, or :class:`IllegalText` if there is none.
        """
        command = find_command(text, self._now.admissible)
        return IllegalText(text) if command is None else self._now.admissible.index(command)

    def expert_action(self) -> str | None:
        """Say what an expert that knows where everything is does next.

        Returns:
            A command; None if the task is done or the episode is over.
        """
        if not self.is_running or self._now.situation is None:
            return None
        intention = intend(self._known, self._playing.task)
        return None if intention is None else self._admissible(intention.action.command(self._known.room.names))

    def expert_thought(self) -> Thought:
        """Write down what that expert thinks: what is before it, what it wants, what comes next."""
        return self._thought(intend(self._known, self._playing.task) if self.is_running else None)

    def demonstrate(self, rng: np.random.Generator, *, mistaken: bool = False) -> Iterator[Thought]:
        """Think through the rest of the episode as an explorer that knows only what it has seen.

        Play each thought's action before asking for the next thought.

        Args:
            rng: Chooses the mistake.
            mistaken: True gets the task wrong: another thing, another place, or a part left out.

        Yields:
            A thought for each state; its plan is what the explorer wants, the thing first. It
            ends with the task or episode, or when everything was seen and nothing helps.
        """
        task = self._playing.task
        explorer = Explorer(mistake(task, self._known.room, rng) if mistaken else task)
        while self.is_running:
            thought = self._thought(explorer.intend(self._known))
            if thought.action is None:
                return
            yield thought

    def _thought(self, intention: Intention | None) -> Thought:
        """Put an intention into words."""
        action = None if intention is None else self._admissible(intention.action.command(self._known.room.names))
        if intention is None or action is None:
            return Thought((), "", "", f"The task is to {self._playing.sentence}. Nothing is left to do.", None)
        seen = look(self._known, self._playing.sentence)
        places = " and ".join(f"the {place.name}{' (closed)' if place.door == 'closed' else ''}" for place in seen.near)
        where = f"I am at {places}." if places else "I am in the middle of the room."
        held = f"I carry the {seen.held.name}." if seen.held else "I carry nothing."
        words = f"The task is to {self._playing.sentence}. {where} {held} I {intention.goal}. So I {action}."
        return Thought((), "", intention.goal, words, action)

    def _facts(self) -> dict[str, Any]:
        game = self._playing
        steps = plan(self._now.situation, game.task) if self._now.situation is not None else []
        return {
            "game": game.key,
            "source": game.source,
            "split": game.split,
            "scene": game.scene,
            "task": game.sentence,
            "task_type": game.task.task_type,
            "goal_rate": self._now.rate,
            "expert_steps": len(steps) if steps or self._now.won else None,
        }

    def _text(self) -> str:
        return self._told(self._noted() if self.notes else [self._now.feedback] if self.scene_text else [])

    def _described(self) -> str:
        return self._told(self._noted() if self.notes else [self._now.feedback] * self.scene_text + self._seen_here())

    def _told(self, scene: Sequence[str]) -> str:
        """The text of a scene with the commands so far, if they are told, and the task, which is told last."""
        told = self._said if self.history < 0 else self._said[len(self._said) - self.history :]
        said = [f"Commands so far: {', '.join(told)}"] if self.history and told else []
        return _printable("\n".join([*said, *scene, f"Task: {self._playing.sentence}"]))

    def _seen_here(self) -> list[str]:
        """What the picture shows."""
        seen = look(self._known, self._playing.sentence)
        here = [
            f"{place.name}{f' {place.door}' if place.door else ''}"
            + (": " + (", ".join(map(str, place.things)) or "nothing") if place.door != "closed" else "")
            for place in seen.near
        ]
        return [f"Here: {'; '.join(here) or 'nothing'}", f"Carrying: {seen.held or 'nothing'}"]

    def _noted(self) -> list[str]:
        """What the picture shows, and the receptacles that were not looked into: ``"cabinet 1 3-5, fridge 1"``."""
        numbers: dict[str, list[int]] = {}
        for receptacle in self._known.room.locations:
            if receptacle not in self._looked:
                kind, _, number = self._known.room.names[receptacle].rpartition(" ")
                numbers.setdefault(kind, []).append(int(number))
        unseen = (f"{kind} {_ranges(sorted(of))}" for kind, of in sorted(numbers.items()))
        return [f"Not seen: {', '.join(unseen) or 'nothing'}", *self._seen_here()]

    def _draw(self, size: int) -> Frame:
        return self._running_backend().draw(size, self._look, labels=self.labels)

    # --- an episode -------------------------------------------------------------------------------------------------

    def _begin(self, options: Mapping[str, Any]) -> None:
        key = options["game"] if "game" in options else self.source.draw(self.np_random)
        if not isinstance(key, str):
            raise OptionError(f"Expected options['game'] as a key such as those of info['game'], got {key!r}.")
        if self._game is None or self._game.key != key:
            self._game = self.source.load(key)
        self._said, self._looked = [], frozenset()
        self._enter(self._running_backend().begin(self._game))

    def _play(self, action: str) -> Outcome:
        backend, before = self._running_backend(), self._now
        command = find_command(action, before.admissible) if action.strip() else None
        self._said.append(command or action)
        if command is not None:
            self._enter(backend.step(command))
        won, rate = self._now.won, self._now.rate
        reward = WIN_REWARD * won + (rate - before.rate if self.pays_increase else rate)
        reward += PENALTY if command is None else 0.0
        cut = not won and (len(self._said) >= self.max_steps or self._repeats())
        reward += self.cut_reward * cut
        # An end that is paid for is a part of the task: no value is to be expected behind it.
        ends = cut and self.cut_reward != 0
        return Outcome(reward, command is not None, terminated=won or ends, truncated=cut and not ends, success=won)

    def _repeats(self) -> bool:
        """Whether the last actions were all the same, as often as is allowed at most."""
        last = self._said[-self.repeat_limit :]
        return self.repeat_limit > 0 and len(last) == self.repeat_limit and len(set(last)) == 1

    def _mask_of(self, legal: Sequence[str]) -> NDArray[np.int8]:
        """Admissible commands come first; no mask is kept, because hardly any state comes twice."""
        return (np.arange(N_ACTIONS) < len(legal)).astype(np.int8)

    def _enter(self, moment: Moment) -> None:
        """Take over what the engine says."""
        self._moment = moment
        if moment.situation is not None:
            self._looked |= in_view(moment.situation)
        # Indices mean other commands in every state.
        self.action_tokens = (*moment.admissible, *[NO_COMMAND] * (N_ACTIONS - len(moment.admissible)))

    def _running_backend(self) -> Backend:
        """The engine; after a copy it is brought to where the other one was."""
        if self._backend is None:
            self._backend = ThorBackend(self.image_size) if self.backend == "thor" else TextBackend()
            if self._moment is not None:
                moment = self._backend.begin(self._playing)
                for said in self._said:
                    if (command := find_command(said, moment.admissible)) is not None:
                        moment = self._backend.step(command)
        return self._backend

    @property
    def _now(self) -> Moment:
        assert self._moment is not None, "no episode has begun"
        return self._moment

    @property
    def _known(self) -> Situation:
        """What holds, for experts and notes."""
        if self._now.situation is None:
            raise OptionError(f"The backend {self.backend!r} does not tell what an expert has to know; use 'text'.")
        return self._now.situation

    def _admissible(self, command: str) -> str | None:
        """The engine's own spelling of a command."""
        return find_command(command, self._now.admissible)

    @property
    def _playing(self) -> Game:
        assert self._game is not None, "no episode has begun"
        return self._game

    def close(self) -> None:
        """Unload the engine, close the window and refuse further use; closing twice is allowed."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None
        super().close()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the engine behind: it belongs to the process."""
        return super().__getstate__() | {"_backend": None}


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers with ranges: ``"1 3-5"``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return " ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _printable(text: str) -> str:
    """Text as the observation space takes it; what real data hold beyond that is replaced."""
    return "".join(c if c.isascii() and (c.isprintable() or c == "\n") else "?" for c in text)[:MAX_TEXT]
