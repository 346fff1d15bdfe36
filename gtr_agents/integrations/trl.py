"""Our environments inside the ``GRPOTrainer`` of TRL, where a model plays by calling a tool.

::

    trainer = GRPOTrainer(
        model,
        reward_funcs=episode_return,
        args=GRPOConfig(num_generations=8, chat_template_kwargs=PICTURES_AS_TENSORS, ...),
        train_dataset=trl_dataset(1000),
        processing_class=processor,
        environment_factory=trl_environment("Points24-v0"),
    )

Each row of the data set is a seed, so every generation of a group begins with the same task. The first message holds
the task and a picture; each call of the tool :meth:`ToolEnvironment.play` is one action, and its result is the next
message. A call that cannot be read ends the episode for TRL; what it costs is :func:`episode_return`'s to say.

TRL calls ``environment_factory`` experimental, so the versions this was run with are checked (:data:`VERSIONS`). The
library itself is not imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym

from gtr_agents.algorithms.base import MakeEnv, text_env_maker
from gtr_agents.errors import ConfigError, DependencyError

if TYPE_CHECKING:
    from datasets import Dataset

VERSIONS = ((1, 16), (1, 17))
"""The first version of TRL that this was run with, and the first that it was not."""
PROMPT = "Play the game below with the tool `play`, one action a call.\n"
"""What the first message opens with; the task follows."""
UNFINISHED = -10.0
"""What it costs to leave an episode before its end: what a win of the card games pays, so more than playing badly."""

PICTURES_AS_TENSORS = {"processor_kwargs": {"images_kwargs": {"return_tensors": "pt"}}}
"""For ``GRPOConfig(chat_template_kwargs=...)``: without torchvision the image processors of transformers return lists,
where TRL 1.16 takes tensors for granted. With torchvision it changes nothing."""

Pictures = Literal["every", "first", "none"]
Message = str | list[dict[str, Any]]


class ToolEnvironment:
    """One environment as TRL wants it: ``reset``, and one public method that becomes the model's tool.

    TRL makes a tool of *every* public method, so there is no other; what came of the episode are attributes.

    Args:
        env: An environment that takes action texts, with an observation of ``"text"`` and, if there are to be
            pictures, ``"image"`` (uint8 [H, W, 3]).
        pictures: Which messages hold a picture, see :func:`trl_environment`.
    """

    def __init__(self, env: gym.Env[Any, Any], pictures: Pictures = "first") -> None:
        self.env = env
        self.pictures = pictures
        self.seed: int | None = None
        """Seed of the episode; None before the first."""
        self.rewards: list[float] = []
        """The reward of every action so far."""
        self.ended = False
        """True once the environment terminated or truncated the episode."""
        self.success = False
        """True if it ended with success."""

    def reset(self, *, seed: int | None = None, **columns: Any) -> Message:
        """Begin the episode of a row of the data set.

        Args:
            seed: The row's seed.
            **columns: The row's other columns, which are not looked at.

        Returns:
            What TRL appends to the last message of the prompt: the task, the text of the first observation and the
            legal actions, after a picture if there is one.

        Raises:
            ConfigError: If the data set has no column ``seed``; the generations of a group would play other tasks.
        """
        if seed is None:
            raise ConfigError(
                f"expected a data set with a column 'seed', so that all generations of a group get the same task; got "
                f"the columns {sorted(columns)}. trl_dataset(...) makes one"
            )
        observation, info = self.env.reset(seed=int(seed))
        self.seed, self.rewards, self.ended, self.success = int(seed), [], False, False
        task = str(getattr(self.env.unwrapped, "instructions", ""))
        return _message(observation, info, task, picture=self.pictures != "none")

    def play(self, action: str) -> Message:
        """Play one action of the game.

        Args:
            action: One of the legal actions that the last message lists.

        Returns:
            What the game shows after the action, and the legal actions of the next one.
        """
        if self.ended:
            return "The game is over."
        # A model may write a number without quotes; JSON then gives no text.
        observation, reward, terminated, truncated, info = self.env.step(str(action))
        self.rewards.append(float(reward))
        self.ended = bool(terminated or truncated)
        if self.ended:
            self.success = bool(info.get("success", False))
            return f"The game is over. Reward: {float(reward):g}."
        head = "" if info.get("legal", True) else "That was no legal action."
        return _message(observation, info, head, picture=self.pictures == "every")


def trl_environment(
    env: str | MakeEnv, *, pictures: Pictures = "first", **env_kwargs: Any
) -> Callable[[], ToolEnvironment]:
    """Return what ``GRPOTrainer(environment_factory=...)`` wants.

    Args:
        env: Id of a registered environment, or a function that makes one which takes action texts.
        pictures: Which messages hold a picture. ``"first"``, the default, asks least of a model (it was run with one of
            LLaVA's kind), and is enough where the text tells what changes (in the card games: the formula so far).
            ``"every"`` puts one into each result of the tool as well; TRL 1.16 then hands the model ``token_type_ids``,
            unless its processor gives ``image_grid_thw``, and models of LLaVA's kind refuse them. TRL means it for
            those of Qwen-VL's and Gemma's kinds; with them it was not run. ``"none"`` is for language models; choose
            ``observe="text"`` for the environment then.
        **env_kwargs: Arguments for ``gymnasium.make`` if ``env`` is an id.

    Returns:
        A function of no arguments that makes a :class:`ToolEnvironment`.

    Raises:
        ConfigError: If ``pictures`` is none of the three.
        DependencyError: If TRL is missing, or of a version that this was not run with.
    """
    require_trl()
    if pictures not in ("every", "first", "none"):
        raise ConfigError(f"pictures must be 'every', 'first' or 'none', got {pictures!r}")
    make = text_env_maker(env, env_kwargs)
    return lambda: ToolEnvironment(make(), pictures)


def trl_dataset(n: int, *, first_seed: int = 0, prompt: str = PROMPT) -> Dataset:
    """Make the data set that ``GRPOTrainer`` draws its tasks from: a row a task, the seed of its environment.

    Args:
        n: Number of tasks, >= 1.
        first_seed: Seed of the first row; the others count up from it.
        prompt: What the first message opens with; the environment adds the task to it.

    Returns:
        Columns ``prompt``, a conversation of one message, and ``seed``.

    Raises:
        ConfigError: If ``n`` or ``first_seed`` is out of range.
        DependencyError: If TRL is missing, or of a version that this was not run with.
    """
    require_trl()
    if n < 1 or first_seed < 0:
        raise ConfigError(f"expected at least one task and seeds from 0, got n={n}, first_seed={first_seed}")
    from datasets import Dataset

    message = [{"role": "user", "content": prompt}]
    return Dataset.from_dict({"prompt": [message] * n, "seed": list(range(first_seed, first_seed + n))})


def episode_return(
    *, environments: Sequence[ToolEnvironment], unfinished: float = UNFINISHED, **columns: Any
) -> list[float]:
    """Return the sum of the environment's rewards for each generation, for ``GRPOTrainer(reward_funcs=...)``.

    Args:
        environments: One a generation, as TRL gives them.
        unfinished: Added where the model left the episode before its end, by a call that could not be read, an answer
            without a call, or for want of tokens. Without it, saying nothing would be better than an illegal action.
        **columns: Whatever else TRL gives, which is not looked at.

    Returns:
        One number a generation.
    """
    del columns
    return [sum(env.rewards) + (0.0 if env.ended else unfinished) for env in environments]


def success(*, environments: Sequence[ToolEnvironment], **columns: Any) -> list[float]:
    """Return 1.0 for each generation that ended with success and 0.0 for the others; to be logged, with weight 0.

    Args:
        environments: One a generation, as TRL gives them.
        **columns: Whatever else TRL gives, which is not looked at.

    Returns:
        One number a generation.
    """
    del columns
    return [float(env.success) for env in environments]


def require_trl() -> None:
    """Refuse to go on without a version of TRL that this was run with.

    Raises:
        DependencyError: If TRL is missing, or of another version.
    """
    low, high = (".".join(map(str, numbers)) for numbers in VERSIONS)
    remedy = f'Run: pip install "gtr-suite[trl]", or "trl>={low},<{high}" beside it.'
    try:
        found = version("trl")
    except PackageNotFoundError as error:
        raise DependencyError(
            f"The adaptor for TRL needs the package 'trl', which is not installed. {remedy}"
        ) from error
    if not VERSIONS[0] <= tuple(map(int, found.split(".")[:2])) < VERSIONS[1]:
        raise DependencyError(
            f"The adaptor for TRL was run with versions from {low} to below {high}, whose `environment_factory` is "
            f"experimental; installed is {found}. {remedy}"
        )


def _message(observation: Any, info: dict[str, Any], head: str, *, picture: bool) -> Message:
    """Write what the model sees: a head, the text of the observation and the legal actions, after the picture."""
    legal = info.get("legal_actions")
    lines = [head, observation["text"], f"Legal actions: {' '.join(legal)}" if legal else ""]
    text = "\n".join(line for line in lines if line)
    if not picture:
        return text
    if "image" not in observation:
        raise ConfigError(
            f"expected an observation with a picture, got one with {sorted(observation)}; say pictures='none', or let "
            "the environment show pictures (observe='both')"
        )
    from PIL import Image

    return [{"type": "image", "image": Image.fromarray(observation["image"])}, {"type": "text", "text": text}]
