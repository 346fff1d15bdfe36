"""Configurations: complete presets, overrides, and errors that name the nearest option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gtr_agents.config import RunConfig, apply_overrides, as_dict, load_config, load_preset, preset_names, resolve
from gtr_agents.errors import ConfigError, GtrError, UnknownNameError

PRESETS = preset_names()
MINIMAL: dict[str, Any] = {"env": {"id": "Points24-v0"}}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_resolves_says_what_it_is_for_and_survives_json(name: str) -> None:
    config = load_config(name)
    assert isinstance(config, RunConfig)
    assert len(config.description) > 20
    assert resolve(yaml.safe_load(yaml.safe_dump(plain(as_dict(config))))) == config


def plain(value: Any) -> Any:
    """Tuples as lists, as JSON stores them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def test_the_presets_of_the_documentation_exist() -> None:
    assert {"tiny-points24", "tiny-ezpoints"} <= set(PRESETS)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'tiny-points24'"):
        load_config("tiny-point24")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ppo.learning_rat=1", r"'ppo\.learning_rat'.*Did you mean 'ppo\.learning_rate'"),
        ("updatess=3", "Did you mean 'updates'"),
        ("rolout.hands=3", "Did you mean 'rollout'"),
        ("sft.step=3", r"Did you mean 'sft\.steps'"),
        ("guidance.bta=3", r"Did you mean 'guidance\.beta'"),
        ("ppo.learning_rate=fast", r"ppo\.learning_rate.*got 'fast'"),
        ("updates=2.5", "updates"),
        ("updates=[1]", "updates"),
        ("ppo=3", "ppo"),
        ("ppo.baseline=magic", r"ppo\.baseline.*'critic'"),
        ("guidance.name=kl", r"guidance\.name.*reverse_kl"),
        ("teacher.weights=mean", r"teacher\.weights"),
        ("policy.value_widths=[1]", "value_widths"),
        ("updates", "section.option=value"),
        ("=3", "section.option=value"),
        ("updates=[1", "updates"),
        ("updates.more=3", "updates"),
    ],
)
def test_a_wrong_override_is_refused_with_its_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("tiny-points24", [override])


@pytest.mark.parametrize(
    "override",
    [
        "updates=0",
        "checkpoint_every=0",
        "threads=-1",
        "policy.temperature=0",
        "policy.max_new_tokens=0",
        "rollout.n_envs=0",
        "rollout.hands=-1",
        "ppo.epochs=0",
        "ppo.minibatch_size=0",
        "ppo.micro_batch_size=0",
        "ppo.gamma=1.5",
        "ppo.clip_range=-0.1",
        "sft.steps=-1",
        "sft.batch_size=0",
        "sft.mistake_rate=2",
        "evaluation.episodes=0",
        "evaluation.interim_episodes=0",
        "evaluation.recorded=-1",
        "ppo.learning_rate=.nan",
    ],
)
def test_a_number_outside_its_range_is_refused_with_its_name(override: str) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0].split(".")[-1]):
        load_config("tiny-points24", [override])


def test_overrides_are_read_as_yaml_and_reach_into_sections() -> None:
    config = load_config(
        "tiny-points24",
        [
            "ppo.learning_rate=1e-4",
            "updates=7",
            "guidance.name=none",
            "env.kwargs={image_size: 120}",
            "env.train.deal=any",
            "sft=null",
            "policy.lora={r: 8}",
            "ppo.adam_betas=[0.5, 0.6]",
            "policy.model=a=b",
            "updates=9",
        ],
    )
    assert config.ppo.learning_rate == 1e-4
    assert config.updates == 9  # the last one counts
    assert config.guidance.name == "none"
    assert config.env.kwargs["image_size"] == 120
    assert config.env.train == {"deal": "any", "illegal": "terminate"}
    assert config.sft is None
    assert config.policy.lora == {"r": 8}
    assert config.ppo.adam_betas == (0.5, 0.6)
    assert config.policy.model == "a=b"


def test_an_override_can_switch_a_section_on() -> None:
    config = resolve(apply_overrides(MINIMAL, ["sft.steps=5"]))
    assert config.sft is not None
    assert config.sft.steps == 5


def test_overriding_does_not_change_what_was_loaded() -> None:
    values = load_preset("tiny-points24")
    before = yaml.safe_dump(values)
    apply_overrides(values, ["env.kwargs.image_size=64", "updates=1"])
    assert yaml.safe_dump(values) == before


def test_defaults_are_the_papers() -> None:
    config = resolve(MINIMAL)
    assert (config.ppo.gamma, config.ppo.lam, config.ppo.clip_range, config.ppo.epochs) == (0.9, 0.95, 0.1, 4)
    assert (config.rollout.format_valid, config.rollout.format_invalid) == (3.0, -2.0)
    assert (config.guidance.estimator, config.guidance.scope, config.guidance.beta) == ("clip", "thought", 1.0)
    assert (config.teacher.density, config.teacher.weights, config.policy.temperature) == (0.8, "sma", 0.2)


def test_without_an_environment_a_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match="env"):
        resolve({})


def test_a_preset_file_may_build_on_another_preset(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("base: tiny-points24\nupdates: 3\nppo: {epochs: 2}\n")
    config, base = load_config(str(own)), load_config("tiny-points24")
    assert (config.updates, config.ppo.epochs) == (3, 2)
    assert config.ppo.minibatch_size == base.ppo.minibatch_size
    assert config.env == base.env


@pytest.mark.parametrize(("text", "message"), [("- a\n- b\n", "mapping"), ("a: [1", "not valid YAML"), ("", "mapping")])
def test_a_preset_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(str(file))


def test_a_missing_preset_file_is_refused() -> None:
    with pytest.raises(GtrError, match="nowhere"):
        load_config("nowhere.yaml")
