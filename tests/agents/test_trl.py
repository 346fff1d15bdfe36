"""TRL's GRPOTrainer plays our environments: real runs of a tiny model that calls a tool."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from small_models import text_env

from gtr_agents.errors import ConfigError, DependencyError
from gtr_agents.integrations import trl as adaptor
from gtr_agents.integrations.trl import (
    PICTURES_AS_TENSORS,
    UNFINISHED,
    ToolEnvironment,
    episode_return,
    success,
    trl_dataset,
    trl_environment,
)
from gtr_agents.policies.tiny import build_tiny_vlm, with_tools

GROUP, BATCH, STEPS = 4, 8, 3
SIZES = {"hidden_size": 64, "layers": 2, "heads": 2, "ff_size": 128, "vision_layers": 1}


@contextmanager
def generators_restored() -> Iterator[None]:
    """The trainer seeds and uses the global generators; what it does there ends here."""
    numpy = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        yield
    np.random.set_state(numpy)  # noqa: NPY002


def example() -> Any:
    """The module of the example, whose tiny player this is."""
    path = Path(__file__).parents[2] / "examples" / "trl_grpo.py"
    spec = importlib.util.spec_from_file_location("trl_grpo", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Diary(ToolEnvironment):
    """Remembers every reset, and what each episode came to before the next."""

    resets: list[tuple[int, str, bytes]]
    """Of all instances, set by :func:`trainer_of`: seed, text and picture."""

    def reset(self, **columns: Any) -> Any:
        message = super().reset(**columns)
        picture, text = message
        self.resets.append((self.seed, text["text"], picture["image"].tobytes()))
        return message


def trainer_of(model: Any, processor: Any, folder: Path, factory: Any, **options: Any) -> Any:
    from trl import GRPOConfig, GRPOTrainer

    settings = {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "num_generations": GROUP,
        "max_completion_length": 128,
        "max_tool_calling_iterations": 3,
        "chat_template_kwargs": PICTURES_AS_TENSORS,
        "learning_rate": 1e-3,
        "reward_weights": [1.0, 0.0],
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "seed": 3,
    }
    data = options.pop("data", None) or trl_dataset(50, prompt="Play.\n")
    return GRPOTrainer(
        model,
        reward_funcs=[episode_return, success],
        args=GRPOConfig(**settings | options),
        train_dataset=data,
        processing_class=processor,
        environment_factory=factory,
    )


class Run(NamedTuple):
    trainer: Any
    callback: Any
    before: dict[str, torch.Tensor]
    resets: list[tuple[int, str, bytes]]
    returns: list[list[float]]


pytestmark = pytest.mark.filterwarnings(
    "ignore:You are using 'environment_factory':UserWarning",
    "ignore:`(is_)?gradient_checkpointing:FutureWarning",
)


@pytest.fixture(autouse=True)
def trainer_may_draw() -> Iterator[None]:
    with generators_restored():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three steps on Points24, after a moment of imitation, with the merged teacher beside."""
    pytest.importorskip("trl", reason='needs pip install "gtr-suite[trl]"')
    from gtr_agents.integrations.transformers import MergedTeacherCallback

    with generators_restored(), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        patch.setattr(Diary, "resets", [], raising=False)
        module = example()
        model, processor = module.tiny_player(**SIZES)
        game = ToolEnvironment(text_env("Points24-v0"))
        module.imitate(
            model,
            processor,
            lambda step: [module.expert_conversation(game, 9000 + 4 * step + i)[:6] for i in range(4)],
            60,
        )
        trainer = trainer_of(model, processor, tmp_path_factory.mktemp("trl"), lambda: Diary(text_env("Points24-v0")))
        returns: list[list[float]] = []
        original = trainer.reward_funcs[0]

        def noted(**given: Any) -> list[float]:
            returns.append([sum(env.rewards) + UNFINISHED * (not env.ended) for env in given["environments"]])
            return original(**given)

        trainer.reward_funcs[0] = noted
        callback = MergedTeacherCallback(every=1)
        callback.add_to(trainer)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        trainer.train()
        return Run(trainer, callback, before, list(Diary.resets), returns)


def logged(run: Run, name: str) -> list[float]:
    return [line[name] for line in run.trainer.state.log_history if name in line]


def test_a_run_on_points24_plays_with_the_tool_logs_its_returns_and_learns(run: Run) -> None:
    assert len(run.returns) == STEPS
    assert logged(run, "rewards/episode_return/mean") == pytest.approx([np.mean(r) for r in run.returns])
    assert len({r for returns in run.returns for r in returns}) > 1
    assert sum(logged(run, "tools/call_frequency")) > STEPS
    assert sum(logged(run, "tools/failure_frequency")) == 0.0
    assert logged(run, "rewards/success/mean") == [0.0] * STEPS
    after = dict(run.trainer.model.named_parameters())
    assert any(not torch.equal(after[name], old) for name, old in run.before.items() if "language_model" in name)
    assert any(not torch.equal(after[name], old) for name, old in run.before.items() if "vision_tower" in name)


def test_the_generations_of_a_group_begin_alike_and_groups_do_not(run: Run) -> None:
    assert len(run.resets) == STEPS * BATCH
    groups = [run.resets[i : i + GROUP] for i in range(0, len(run.resets), GROUP)]
    assert all(len(set(group)) == 1 for group in groups)
    assert len({group[0] for group in groups}) == len(groups)


def test_the_merged_teacher_goes_along_with_the_trainer_of_trl(run: Run) -> None:
    assert run.callback.manager.n_checkpoints == STEPS
    assert logged(run, "teacher/version") == [2, 3, 4]
    student = dict(run.trainer.model.named_parameters())
    own = {name: p.detach().clone() for name, p in student.items()}
    with run.callback.teacher() as teacher:
        merged = {name: p.detach().clone() for name, p in teacher.named_parameters()}
    assert any(not torch.equal(merged[name], own[name]) for name in own)
    assert any(not torch.equal(merged[name], run.before[name]) for name in own)
    assert all(torch.equal(p, own[name]) for name, p in student.items())


BROKEN = {
    "no JSON": ('<tool_call>{"name": "play", "argu', 0.0, 0.0),
    "an unknown tool": ('<tool_call>{"name": "fly", "arguments": {"action": "1"}}', 2.0, 1.0),
    "another argument": ('<tool_call>{"name": "play", "arguments": {"card": "1"}}', 2.0, 1.0),
}
"""What the model writes, how often TRL calls a tool in an episode, and the share of the calls that fail."""


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_call_is_data_and_not_a_crash(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason='needs pip install "gtr-suite[trl]"')
    text, calls, failures = BROKEN[kind]
    text += "</tool_call>"
    module = example()
    model, processor = build_tiny_vlm(vocabulary=[text], **SIZES)
    with_tools(processor)
    game = ToolEnvironment(text_env("EZPoints-v0"))
    answer = {"role": "assistant", "content": text}
    # The task and the same answer, again and again, until it writes nothing else.
    module.imitate(model, processor, lambda s: [[*module.expert_conversation(game, s)[:1], answer]], 40)
    envs: list[ToolEnvironment] = []

    def factory() -> ToolEnvironment:
        envs.append(ToolEnvironment(text_env("EZPoints-v0")))
        return envs[-1]

    trainer = trainer_of(
        model, processor, tmp_path, factory, max_steps=1, max_tool_calling_iterations=2, max_completion_length=400
    )
    trainer.train()
    line = trainer.state.log_history[0]
    assert line["tools/call_frequency"] == pytest.approx(calls)
    assert line["tools/failure_frequency"] == pytest.approx(failures)
    assert line["rewards/episode_return/mean"] == UNFINISHED
    assert not any(env.rewards for env in envs)


def test_a_data_set_without_seeds_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason='needs pip install "gtr-suite[trl]"')
    module = example()
    model, processor = module.tiny_player(**SIZES)
    data = trl_dataset(8).remove_columns("seed")
    trainer = trainer_of(model, processor, tmp_path, lambda: ToolEnvironment(text_env()), data=data)
    with pytest.raises(ConfigError, match=r"a column 'seed'.*got the columns \['prompt'\]"):
        trainer.train()


def test_pictures_in_the_results_of_the_tool_need_a_model_that_takes_token_types(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason='needs pip install "gtr-suite[trl]"')
    torch.manual_seed(0)
    module = example()
    model, processor = module.tiny_player(**SIZES)
    game = ToolEnvironment(text_env("EZPoints-v0"))
    module.imitate(model, processor, lambda s: [module.expert_conversation(game, 4 * s + i)[:2] for i in range(4)], 40)
    trainer = trainer_of(model, processor, tmp_path, lambda: ToolEnvironment(text_env("EZPoints-v0"), "every"))
    with pytest.raises((TypeError, ValueError), match="token_type_ids"):
        trainer.train()


# --- without TRL


@pytest.mark.parametrize(
    ("pictures", "first", "later"), [("every", list, list), ("first", list, str), ("none", str, str)]
)
def test_pictures_are_where_they_were_asked_for(pictures: Any, first: type, later: type) -> None:
    game = ToolEnvironment(text_env("EZPoints-v0"), pictures)
    task, result = game.reset(seed=0), game.play("2")
    assert (type(task), type(result)) == (first, later)
    text = task if isinstance(task, str) else task[-1]["text"]
    assert text.startswith("You are playing a card game.")
    assert text.endswith("\nLegal actions: 2 10")
    if isinstance(result, list):
        shown = np.asarray(result[0]["image"])
        assert shown.shape == (96, 96, 3)
        assert not np.array_equal(shown, np.asarray(task[0]["image"]))
        result = result[1]["text"]
    assert result == "2\nLegal actions: + * ="


def test_an_episode_ends_once_and_counts_every_reward() -> None:
    game = ToolEnvironment(text_env("EZPoints-v0"))
    game.reset(seed=0)
    assert episode_return(environments=[game]) == [UNFINISHED]
    assert game.play("jump").startswith("That was no legal action.\nLegal actions: 2 10")
    assert game.play(2).startswith("2\n")  # type: ignore[arg-type] - a model may leave the quotes out
    for action in ("+", "10"):
        game.play(action)
    assert game.play("=") == "The game is over. Reward: 10."
    assert game.play("=") == "The game is over."
    assert game.rewards == [-1, 0, 0, 0, 10]
    assert episode_return(environments=[game], prompts=["as TRL gives them"]) == [9.0]
    assert success(environments=[game]) == [1.0]
    game.reset(seed=1)
    assert (game.rewards, game.ended, game.success) == ([], False, False)
    assert episode_return(environments=[game], unfinished=-2.0) == [-2.0]


def test_the_tool_is_the_only_public_method() -> None:
    methods = {name for name in vars(ToolEnvironment) if callable(getattr(ToolEnvironment, name))}
    assert {name for name in methods if not name.startswith("_")} == {"reset", "play"}


@pytest.mark.parametrize("installed", ["1.15.2", "1.17.0.dev0", "2.0.0"])
def test_another_version_is_named_with_what_to_install(installed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptor, "version", lambda _: installed)
    with pytest.raises(
        DependencyError, match=rf"from 1\.16 to below 1\.17.*installed is {installed}.*gtr-suite\[trl\]"
    ):
        trl_environment("Points24-v0")


def test_a_missing_trl_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise adaptor.PackageNotFoundError(name)

    monkeypatch.setattr(adaptor, "version", missing)
    with pytest.raises(DependencyError, match=r"'trl', which is not installed. Run: pip install \"gtr-suite\[trl\]\""):
        trl_dataset(3)


def test_wrong_arguments_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptor, "version", lambda _: "1.16.0")
    with pytest.raises(ConfigError, match="'every', 'first' or 'none', got 'all'"):
        trl_environment("Points24-v0", pictures="all")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="n=0"):
        trl_dataset(0)
    with pytest.raises(ConfigError, match=r"one with \['text'\]"):
        trl_environment("Points24-v0", observe="text")().reset(seed=0)


def test_the_adaptor_loads_no_trl() -> None:
    code = "import sys, gtr_agents.integrations.trl; print({'trl', 'datasets'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
