"""Where the model of an evaluation comes from: a run, a folder, the hub, or a chat endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gtr_agents.config import PolicyConfig, RunConfig, load_config, resolve
from gtr_agents.endpoint import EndpointActor, is_endpoint, open_client
from gtr_agents.endpoint_settings import EndpointSettings
from gtr_agents.errors import CheckpointError, ConfigError
from gtr_agents.files import sha256
from gtr_agents.prompts import get_template, template_data
from gtr_agents.recorder import RunFolder
from gtr_agents.run_checkpoints import RunCheckpoints, model_folder

if TYPE_CHECKING:
    from gtr_agents.merging.state_dict import StateDict
    from gtr_agents.policies.vlm import VLMPolicy

Role = Literal["student", "teacher", "start"]
"""Which model of a run: the newest, the teacher merged from its checkpoints, or the one before the first update."""
ANY_TASK = "thoughts"
"""Prompt template that fits every task; of models that bring none, where no preset is named."""
_NOT_THE_MODEL = ("algorithm.safetensors", "value_head.safetensors")
_SETTINGS = (
    "config.json", "policy.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json",
    "processor_config.json", "preprocessor_config.json", "chat_template.jinja",
)  # fmt: skip
"""Files of a folder that, with the weights, decide what a model answers."""


@dataclass(frozen=True, slots=True)
class Player:
    """A model that is ready to play."""

    label: str
    """What it is called in tables and files."""
    actor: VLMPolicy | EndpointActor
    """Who answers."""
    config: RunConfig
    """The settings it is used to: how tasks are shown."""
    temperature: float
    """Of sampled answers."""
    identity: Mapping[str, Any]
    """What decides its answers, as JSON holds it: hashes of files, the hub's commit, or address and name."""
    ended: Callable[[], str | None] = lambda: None
    """Says why it answers no more; None as long as it does."""

    @property
    def is_remote(self) -> bool:
        """True behind an endpoint: answers do not depend on what else is asked, and cost something."""
        return isinstance(self.actor, EndpointActor)


@contextmanager
def open_player(
    spec: str,
    *,
    role: Role = "student",
    preset: str | None = None,
    env: str | None = None,
    need_env: bool = True,
    template: str = "",
    endpoint: EndpointSettings | None = None,
) -> Iterator[Player]:
    """Load a model, or connect to one.

    Args:
        spec: a run folder, a model folder, a hub id ``org/name``, ``http://host:port/v1``, or ``openai:MODEL@URL``.
        role: which model of a run.
        preset: whose settings to use where there is no run.
        env: environment it will play; default that of the settings.
        need_env: False if something else says what it will play.
        template: prompt template; empty takes the one that the model was saved with, else that of the preset.
        endpoint: how an endpoint is asked.

    Yields:
        The player; it is closed afterwards.

    Raises:
        ConfigError: if nothing says what to play, or a role is asked of what is no run.
        CheckpointError: if the run has no such model.
        ModelError: if there is no such model.
        EndpointError: if an endpoint cannot be asked.
    """
    from gtr_agents.training import prepare

    if is_endpoint(spec):
        with _endpoint_player(spec, role, preset, template, endpoint or EndpointSettings()) as player:
            yield player
        return
    from gtr_agents.policies.vlm import VLMPolicy

    path = Path(spec)
    config = config_for(path, env, preset, need_env=need_env)
    prepare(config.threads)
    folder = _role_folder(path, role)
    options = _options(folder, config.policy, preset, template, need_env=need_env)
    policy = VLMPolicy.from_pretrained(folder if folder.is_dir() else spec, **options)
    acting: AbstractContextManager[None] = nullcontext()
    if role == "teacher":
        acting = policy.using(teacher_weights(path, config))
    with acting:
        label = spec if role == "student" else f"{spec} ({role})"
        yield Player(label, policy, config, policy.temperature, _identity(policy, folder, role))


def _options(
    folder: Path, policy: PolicyConfig, preset: str | None, template: str, *, need_env: bool
) -> dict[str, Any]:
    """What is said to a model that was not saved by us, and brings no settings of its own."""
    named: dict[str, Any] = {"template": template} if template else {}
    if (folder / "policy.json").is_file() or (preset is None and need_env):
        return named
    if preset is None:
        return {"template": ANY_TASK} | named
    names = ("template", "temperature", "max_new_tokens", "dtype")
    return {name: getattr(policy, name) for name in names} | named


@contextmanager
def _endpoint_player(
    spec: str, role: Role, preset: str | None, template: str, settings: EndpointSettings
) -> Iterator[Player]:
    if role != "student":
        raise ConfigError(f"{spec} is no run: it has no {role}.")
    plain = {"env": {"id": ""}, "policy": {"template": ANY_TASK}}
    config = load_config(preset) if preset is not None else resolve(plain)
    chosen = get_template(template or config.policy.template)
    temperature, max_tokens = config.policy.temperature, config.policy.max_new_tokens
    client = open_client(spec, settings, temperature=temperature, max_tokens=max_tokens)
    try:
        actor = EndpointActor(client, chosen, max_failures=settings.max_failures)
        identity = {
            "base_url": client.settings.base_url,
            "model": client.settings.model,
            "max_tokens": max_tokens,
            "template": template_data(chosen),
        }
        yield Player(
            f"{client.settings.model} at {client.settings.base_url}", actor, config, temperature, identity, actor.ended
        )
    finally:
        client.stop()


def config_for(path: Path, env: str | None, preset: str | None, *, need_env: bool = True) -> RunConfig:
    """Find the settings that a model is evaluated with.

    Args:
        path: run folder, model folder, or hub id.
        env: environment id; default that of the run or the preset.
        preset: whose settings to use.
        need_env: False is content with no environment.

    Returns:
        The configuration; that of another environment has no further arguments.

    Raises:
        ConfigError: if nothing says which environment.
    """
    if preset is not None:
        config = load_config(preset)
    elif (path / "config.json").is_file() and (path / "checkpoints").is_dir():
        config = resolve(RunFolder.open(path).config()["config"])
    elif env is not None or not need_env:
        config = resolve({"env": {"id": env or ""}})
    else:
        raise ConfigError(
            f"{path} is no run folder: say what to evaluate on, with --on SET, --env ID or --preset NAME."
        )
    if env is not None and env != config.env.id:
        config = resolve({"env": {"id": env}})
    return config


def teacher_weights(path: Path, config: RunConfig) -> StateDict:
    """Load the weights of a run's merged teacher.

    Raises:
        CheckpointError: if it has none.
    """
    from gtr_agents.build import build_teacher

    folder = model_folder(path) / "teacher"
    if not folder.is_dir():
        raise CheckpointError(f"{path} has no teacher: expected {folder}. Train a run first (gtr train).")
    teacher = build_teacher(config)
    teacher.load(folder)
    return teacher.teacher_state()


def _role_folder(path: Path, role: Role) -> Path:
    """Where the model lies; for a teacher, the student that it takes the place of."""
    if role != "start":
        return model_folder(path)
    checkpoints = RunCheckpoints(path)
    if not checkpoints.has_start():
        raise CheckpointError(f"{path} has no start model: expected {checkpoints.start}. Is it a run folder?")
    return checkpoints.start


def _identity(policy: VLMPolicy, folder: Path, role: Role) -> dict[str, Any]:
    """Hashes of what decides a model's answers; of one from the hub, its commit."""
    settings = {
        "template": template_data(policy.template),
        "max_new_tokens": policy.max_new_tokens,
    }
    if not folder.is_dir():
        return settings | {"hub": str(folder), "commit": getattr(policy.model.config, "_commit_hash", None)}
    weights = [path for path in folder.glob("*.safetensors") if path.name not in _NOT_THE_MODEL]
    further = [folder / name for name in _SETTINGS if (folder / name).is_file()]
    teacher = sorted((folder / "teacher").rglob("*.safetensors")) if role == "teacher" else []
    files = {path.relative_to(folder).as_posix(): path for path in [*sorted(weights), *further, *teacher]}
    return settings | {
        "files": {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in files.items()}
    }
