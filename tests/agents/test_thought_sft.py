"""Imitation of thoughts: what becomes a sample, what is trained, what is kept, and that a restart changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import (
    answered,
    fit_critic_badly,
    generator,
    largest_difference,
    prompts_of,
    same_weights,
    text_env,
    tiny_policy,
    weights_of,
)

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.errors import CheckpointError, ConfigError, TrainingError, UnknownNameError
from gtr_agents.guidance.base import ThoughtSampling
from gtr_agents.guidance.imitation import Imitation, ImitationSet
from gtr_agents.guidance.thought_sft import ThoughtSFT
from gtr_agents.parsing import parse_answer
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.prompts import PromptTemplate
from gtr_agents.rollout import RolloutCollector
from gtr_agents.teachers.merged import TeacherManager
from gtr_agents.teachers.oracle import OracleTeacher
from gtr_agents.types import Correction, Prompt, Response, Rollout, Step, Trajectory

SETTINGS = PPOSettings(epochs=2, minibatch_size=8, learning_rate=1e-3, final_learning_rate=1e-4)


class Saying:
    """A thinker that says the same about every step."""

    needs_expert = False

    def __init__(self, *corrections: Correction) -> None:
        self.corrections = corrections
        self.asked: list[Step] = []

    def think(
        self, steps: Sequence[Step], template: PromptTemplate, on_done: Callable[[int], None] | None = None
    ) -> list[Correction]:
        del template, on_done
        self.asked.extend(steps)
        return [self.corrections[i % len(self.corrections)] for i in range(len(steps))]

    def diagnostics(self) -> dict[str, float]:
        return {"teacher/asked": float(len(self.asked))}

    def state(self) -> dict[str, Any]:
        return {"asked": len(self.asked)}

    def load_state(self, state: dict[str, Any]) -> None:
        self.restored = state


@pytest.fixture
def student(schooled: Path) -> VLMPolicy:
    return VLMPolicy.from_pretrained(schooled)


def easy_env() -> Any:
    return text_env("EZPoints-v0", illegal="terminate")


def written(policy: VLMPolicy, prompt: Prompt, answer: str, **options: Any) -> Step:
    """A step in which the student wrote this answer."""
    response = answered(policy, [prompt])[0]
    ids = np.array([*policy.tokenizer(answer, add_special_tokens=False)["input_ids"], policy.eos_id], np.int64)
    template = policy.template
    parsed = parse_answer(answer, template.required_keys)
    zeros = np.zeros(len(ids), np.float32)
    mask = policy.thought_mask(ids.tolist(), answer, parsed)
    response = replace(
        response, text=answer, answer=parsed, token_ids=ids, log_probs=zeros, log_probs_t1=zeros, thought_mask=mask
    )
    return Step(prompt, response, 0.0, True, False, **options)


def rollout_of(*steps: Step, success: bool = False) -> Rollout:
    return Rollout([Trajectory([step], 0.0, seed=0, success=success) for step in steps], 1.0)


def guided(policy: VLMPolicy, thinker: Saying, guidance: ThoughtSFT, *steps: Step) -> dict[str, float]:
    algorithm = PPO(policy, easy_env, guidance=guidance, thinker=thinker)
    return guidance.annotate(rollout_of(*steps), algorithm.teacher_view())


STUDENT = '{"cards": [2, 3], "thoughts": "2+3", "action": "2"}'
TEACHER = '{"cards": [2, 6], "thoughts": "2*6", "action": "6"}'


def test_the_thought_is_the_teachers_and_the_action_the_agents_own_and_not_trained(student: VLMPolicy) -> None:
    prompt = prompts_of(n=1, env_id="EZPoints-v0")[0]
    guidance = ThoughtSFT()
    metrics = guided(student, Saying(Correction(answer=TEACHER)), guidance, written(student, prompt, STUDENT))
    (sample,) = guidance.draw(5, np.random.default_rng(0))
    texts = student.token_texts(sample.token_ids)
    assert "".join(texts) == '{"cards": [2, 6], "thoughts": "2*6", "action": "2"}'
    trained = "".join(text for text, is_trained in zip(texts, sample.mask, strict=True) if is_trained)
    assert trained.startswith('{"cards": [2, 6], "thoughts": "2*6')
    assert '2"}' not in trained
    assert student.eos_id not in sample.token_ids
    assert np.array_equal(sample.prompt.image, prompt.image)
    assert sample.prompt.text == prompt.text
    assert metrics["guidance/samples"] == metrics["guidance/dataset"] == 1
    assert metrics["guidance/same_action"] == 0.0


def test_only_well_formed_answers_are_shown_to_the_teacher(student: VLMPolicy) -> None:
    prompt = prompts_of(n=1, env_id="EZPoints-v0")[0]
    steps = [written(student, prompt, text) for text in ("no json", '{"thoughts": "2"}', STUDENT)]
    thinker = Saying(Correction(answer=TEACHER))
    guidance = ThoughtSFT()
    guided(student, thinker, guidance, *steps)
    assert thinker.asked == [steps[2]]
    assert len(guidance.data) == 1


def test_approval_failure_and_hopelessness_give_no_sample_and_are_counted(student: VLMPolicy) -> None:
    prompts = prompts_of(n=4, env_id="EZPoints-v0")
    thinker = Saying(
        Correction(ok=True), Correction(error="time-out"), Correction(solvable=False), Correction(answer=STUDENT)
    )
    guidance = ThoughtSFT()
    metrics = guided(student, thinker, guidance, *(written(student, prompt, STUDENT) for prompt in prompts))
    shares = {name: metrics[f"guidance/{name}"] for name in ("approved", "failed", "unsolvable", "same_action")}
    assert shares == {"approved": 0.25, "failed": 0.25, "unsolvable": 0.25, "same_action": 1.0}
    assert len(guidance.data) == 1


def test_a_teacher_that_answers_too_little_stops_the_run(student: VLMPolicy) -> None:
    class Forgetful(Saying):
        def think(self, *arguments: Any, **options: Any) -> list[Correction]:
            return super().think(*arguments, **options)[1:]

    prompt = prompts_of(n=1, env_id="EZPoints-v0")[0]
    with pytest.raises(TrainingError, match="corrections of 1 steps, got 0"):
        guided(student, Forgetful(Correction(ok=True)), ThoughtSFT(), written(student, prompt, STUDENT))


def test_an_episode_ends_where_the_teacher_sees_no_way_to_win(student: VLMPolicy) -> None:
    prompts = prompts_of(n=3, env_id="EZPoints-v0")
    steps = [written(student, prompt, STUDENT) for prompt in prompts]
    thinker = Saying(Correction(ok=True), Correction(solvable=False), Correction(answer=TEACHER))
    for stop in (False, True):
        guidance = ThoughtSFT(stop_unsolvable=stop, stop_reward=-1.0)
        trajectory = Trajectory([replace(step, terminated=False) for step in steps], 7.0, seed=0, complete=False)
        view = PPO(student, easy_env, guidance=guidance, thinker=thinker).teacher_view()
        guidance.annotate(Rollout([trajectory], 1.0), view)
        if not stop:
            assert (len(trajectory.steps), trajectory.bootstrap_value) == (3, 7.0)
    assert (len(trajectory.steps), trajectory.bootstrap_value) == (2, 0.0)
    assert (trajectory.steps[1].reward, trajectory.steps[1].terminated) == (-1.0, True)


def test_rejection_sampling_imitates_whole_answers_of_won_episodes_without_a_teacher(student: VLMPolicy) -> None:
    prompts = prompts_of(n=3, env_id="EZPoints-v0")
    won, lost, unreadable = (written(student, p, t) for p, t in zip(prompts, (STUDENT, STUDENT, "?"), strict=True))
    guidance = ThoughtSFT(source="own_success")
    rollout = rollout_of(won, unreadable, success=True)
    rollout.trajectories.extend(rollout_of(lost).trajectories)
    metrics = guidance.annotate(rollout, PPO(student, easy_env, guidance=guidance).teacher_view())
    (sample,) = guidance.draw(5, np.random.default_rng(0))
    assert sample.token_ids.tolist() == won.response.token_ids.tolist()
    assert sample.mask.all()
    assert metrics == {
        "guidance/samples": 1.0,
        "guidance/dataset": 1.0,
        "guidance/dataset_mb": metrics["guidance/dataset_mb"],
    }


# --- a teacher with weights ------------------------------------------------------------------------------------------


def test_weights_write_their_own_thoughts_and_leave_the_student_as_it_was(student: VLMPolicy) -> None:
    teacher = TeacherManager()
    state = {name: p + 0.01 * torch.randn(p.shape, generator=generator()) for name, p in student.merge_state().items()}
    teacher.start(state)
    before = weights_of(student)
    prompts = prompts_of(n=6, env_id="EZPoints-v0")
    steps = [written(student, prompt, STUDENT) for prompt in prompts]
    done: list[int] = []
    algorithm = PPO(student, easy_env, teacher=teacher, rollout=RolloutSettings(n_envs=4), guidance=ThoughtSFT())
    view = algorithm.teacher_view()
    view.on_done = done.append
    corrections = view.think(steps, ThoughtSampling())
    assert same_weights(before, weights_of(student))
    assert done == [4, 2]
    with student.using(state):
        expected = student.act(prompts[:4], generator=algorithm.teacher_view().generator, temperature=0.2)
    for correction, response in zip(corrections, expected, strict=False):
        if response.answer.valid_format:
            assert correction.answer == response.text
    assert any(correction.answer for correction in corrections)


def test_the_same_state_is_thought_about_once(student: VLMPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = TeacherManager()
    teacher.start(student.merge_state())
    first, second = prompts_of(n=2, env_id="EZPoints-v0")
    again = Prompt(first.text, first.image.copy(), first.system)
    other = Prompt(first.text, 255 - first.image, first.system)
    steps = [written(student, prompt, STUDENT) for prompt in (first, second, again, other)]
    asked: list[Prompt] = []
    act = student.act

    def watched(prompts: Sequence[Prompt], **options: Any) -> list[Response]:
        asked.extend(prompts)
        return act(prompts, **options)

    monkeypatch.setattr(student, "act", watched)
    view = PPO(student, easy_env, teacher=teacher, rollout=RolloutSettings(n_envs=8)).teacher_view()
    corrections = view.think(steps, ThoughtSampling(retries=1))
    assert asked == [first, second, other]
    assert corrections[0] == corrections[2]


def test_attempts_get_warmer_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy()  # untrained: none of its answers is well formed
    prompts = prompts_of(n=3, env_id="EZPoints-v0")
    steps = [Step(p, r, 0.0, True, False) for p, r in zip(prompts, answered(policy, prompts), strict=True)]
    teacher = TeacherManager()
    teacher.start(policy.merge_state())
    asked: list[tuple[int, float]] = []
    act = policy.act

    def watched(prompts: Sequence[Prompt], *, generator: torch.Generator, temperature: float) -> list[Response]:
        asked.append((len(prompts), temperature))
        return act(prompts, generator=generator, temperature=temperature)

    monkeypatch.setattr(policy, "act", watched)
    view = PPO(policy, easy_env, teacher=teacher, rollout=RolloutSettings(n_envs=8)).teacher_view()
    corrections = view.think(steps, ThoughtSampling(temperature=0.5, growth=1.5, max_temperature=0.9, retries=4))
    assert asked == [(3, 0.5), (3, 0.75), (3, 0.9), (3, 0.9)]
    assert [c.error for c in corrections] == ["no answer was well formed"] * 3


# --- the loss --------------------------------------------------------------------------------------------------------


def collected(policy: VLMPolicy) -> Rollout:
    collector = RolloutCollector(easy_env, 4)
    rollout = collector.play_episodes(policy, range(6), generator=generator())
    collector.close()
    return rollout


def test_the_loss_is_the_mean_cross_entropy_of_the_trained_tokens_in_the_same_step(student: VLMPolicy) -> None:
    """With a learning rate that only imitation moves (no advantage), one step follows the gradient of that mean."""
    fit_critic_badly(student)
    prompts = prompts_of(n=4, env_id="EZPoints-v0")
    guidance = ThoughtSFT(weight=0.5)
    guidance.data.extend(_sample(student, prompt, TEACHER) for prompt in prompts)
    settings = PPOSettings(
        epochs=1, minibatch_size=64, micro_batch_size=3, value_coef=0.0, max_grad_norm=1e9, clip_range=0.2
    )
    algorithm = PPO(student, easy_env, settings=settings, guidance=guidance, thinker=Saying())
    samples = guidance.draw(4, np.random.default_rng(0))
    output = student.evaluate([s.prompt for s in samples], [s.token_ids for s in samples], temperature=1.0)
    trained = torch.zeros_like(output.mask)
    for row, sample in enumerate(samples):
        trained[row, : len(sample.mask)] = torch.from_numpy(sample.mask)
    expected = -output.log_probs[trained].mean()
    (0.5 * expected).backward()
    wanted = {name: p.grad.clone() for name, p in student.model.named_parameters() if p.grad is not None}
    rollout = collected(student)
    for step in rollout.steps:  # no advantage anywhere: PPO's own gradient is 0
        step.reward = 0.0
        object.__setattr__(step.response, "value", 0.0)
    for trajectory in rollout.trajectories:
        trajectory.bootstrap_value = 0.0
    metrics = algorithm.update(rollout, 0.0)
    assert metrics["train/sft_loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert metrics["train/sft_skipped"] == 0.0
    got = {name: p.grad for name, p in student.model.named_parameters() if p.grad is not None}
    assert max(float((got[name] - wanted[name]).abs().max()) for name in wanted) < 1e-5
    assert max(float(gradient.abs().max()) for gradient in wanted.values()) > 1e-3


def test_imitation_makes_no_optimizer_step_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: dict[bool, int] = {}
    for imitating in (False, True):
        policy = tiny_policy()
        guidance = ThoughtSFT() if imitating else None
        if guidance is not None:
            guidance.data.extend(_sample(policy, prompt, TEACHER) for prompt in prompts_of(n=9, env_id="EZPoints-v0"))
        algorithm = PPO(policy, easy_env, settings=SETTINGS, guidance=guidance, thinker=Saying())
        count = 0
        step = algorithm.adam.optimizer.step

        def counted(step: Callable[[], None] = step) -> None:
            nonlocal count
            count += 1
            step()

        monkeypatch.setattr(algorithm.adam.optimizer, "step", counted)
        algorithm.update(collected(policy), 0.0)
        steps[imitating] = count
    assert steps[True] == steps[False] > 0


def test_a_sample_without_a_finite_loss_is_left_out_and_counted(student: VLMPolicy, monkeypatch: Any) -> None:
    prompts = prompts_of(n=2, env_id="EZPoints-v0")
    guidance = ThoughtSFT()
    bad = replace(_sample(student, prompts[0], TEACHER), prompt=Prompt("broken", prompts[0].image))
    guidance.data.extend([bad, _sample(student, prompts[1], TEACHER)])
    evaluate = student.evaluate

    def breaking(prompts: Sequence[Prompt], token_ids: Any, **options: Any) -> Any:
        output = evaluate(prompts, token_ids, **options)
        if any(prompt.text == "broken" for prompt in prompts):
            output.log_probs = output.log_probs * float("nan")
        return output

    monkeypatch.setattr(student, "evaluate", breaking)
    settings = replace(SETTINGS, epochs=1, minibatch_size=64, micro_batch_size=1)
    algorithm = PPO(student, easy_env, settings=settings, guidance=guidance, thinker=Saying())
    metrics = algorithm.update(collected(student), 0.0)
    assert metrics["train/sft_skipped"] == 0.5
    assert np.isfinite(metrics["train/sft_loss"])
    assert all(torch.isfinite(p).all() for p in student.model.parameters())


def test_imitation_raises_the_probability_of_the_teachers_thought(student: VLMPolicy) -> None:
    prompts = prompts_of(n=4, env_id="EZPoints-v0")
    guidance = ThoughtSFT()
    samples = [_sample(student, prompt, TEACHER) for prompt in prompts]
    guidance.data.extend(samples)

    def thought_log_prob() -> float:
        scores = student.score([s.prompt for s in samples], [s.token_ids for s in samples])
        return float(np.mean([score[s.mask].sum() for score, s in zip(scores, samples, strict=True)]))

    before = thought_log_prob()
    algorithm = PPO(student, easy_env, settings=SETTINGS, guidance=guidance, thinker=Saying())
    algorithm.update(collected(student), 0.0)
    assert thought_log_prob() > before + 0.1


def _sample(policy: VLMPolicy, prompt: Prompt, answer: str) -> Imitation:
    ids = policy.tokenizer(answer, add_special_tokens=False)["input_ids"]
    parsed = parse_answer(answer, policy.template.required_keys)
    return Imitation(prompt, np.array(ids, np.int64), policy.thought_mask(ids, answer, parsed))


# --- the dataset -----------------------------------------------------------------------------------------------------


def samples(n: int, first: int = 0, images: int | None = None) -> list[Imitation]:
    """Different samples, whose pictures repeat after ``images``."""
    made = []
    for i in range(first, first + n):
        image = np.full((8, 8, 3), i % (images or 256), np.uint8)
        made.append(Imitation(Prompt(f"p{i}", image, "s"), np.arange(i % 5 + 1), np.arange(i % 5 + 1) > 0))
    return made


def texts(drawn: Sequence[Imitation]) -> list[str]:
    return sorted(sample.prompt.text for sample in drawn)


def test_draws_are_without_replacement_and_all_of_a_small_set() -> None:
    data = ImitationSet()
    data.extend(samples(20))
    rng = np.random.default_rng(0)
    assert len(set(texts(data.draw(7, rng)))) == 7
    assert texts(data.draw(100, rng)) == texts(samples(20))
    assert ImitationSet().draw(5, rng) == []


def test_a_picture_that_repeats_is_kept_once_and_comes_back_exactly() -> None:
    data = ImitationSet()
    data.extend(samples(50, images=2))
    alone = ImitationSet()
    alone.extend(samples(2))
    pictures = data.n_bytes - sum(5 * len(s.token_ids) for s in samples(50))
    assert pictures == alone.n_bytes - sum(5 * len(s.token_ids) for s in samples(2))
    for sample in data.draw(50, np.random.default_rng(0)):
        (original,) = [s for s in samples(50, images=2) if s.prompt.text == sample.prompt.text]
        assert np.array_equal(sample.prompt.image, original.prompt.image)
        assert sample.prompt.image.dtype == np.uint8
        assert (sample.token_ids.tolist(), sample.mask.tolist()) == (
            original.token_ids.tolist(),
            original.mask.tolist(),
        )


def test_an_update_that_is_taken_back_leaves_no_samples() -> None:
    data = ImitationSet()
    data.extend(samples(3))
    data.commit()
    data.extend(samples(5, first=10))  # this update fails: no commit
    data.extend(samples(2, first=20))
    assert texts(data.draw(100, np.random.default_rng(0))) == ["p0", "p1", "p2", "p20", "p21"]


def test_what_is_too_much_or_too_old_is_dropped_with_its_pictures() -> None:
    small, young = ImitationSet(max_size=4), ImitationSet(max_age=1)
    for data in (small, young):
        for update in range(3):
            data.extend(samples(3, first=10 * update))
            data.commit()
    rng = np.random.default_rng(0)
    assert texts(small.draw(9, rng)) == ["p12", "p20", "p21", "p22"]
    assert texts(young.draw(9, rng)) == ["p20", "p21", "p22"]
    assert len(young._images) == 3


def test_younger_samples_are_drawn_more_often_by_their_half_life() -> None:
    data = ImitationSet(half_life=1.0)
    for update in range(2):
        data.extend(samples(1, first=update))
        data.commit()
    rng = np.random.default_rng(0)
    drawn = [data.draw(1, rng)[0].prompt.text for _ in range(2000)]
    assert drawn.count("p1") / 2000 == pytest.approx(2 / 3, abs=0.04)


def test_a_saved_dataset_draws_the_same(tmp_path: Path) -> None:
    data = ImitationSet(half_life=2.0)
    data.extend(samples(10, images=3))
    data.commit()
    data.extend(samples(4, first=30))
    data.commit()
    data.save(tmp_path)
    again = ImitationSet(half_life=2.0)
    again.load(tmp_path)
    for n in (3, 14):
        first, second = (d.draw(n, np.random.default_rng(n)) for d in (data, again))
        for a, b in zip(first, second, strict=True):
            assert (a.prompt.text, a.prompt.system) == (b.prompt.text, b.prompt.system)
            assert np.array_equal(a.prompt.image, b.prompt.image)
            assert a.token_ids.tolist() == b.token_ids.tolist()
            assert a.mask.tolist() == b.mask.tolist()
    again.extend([])
    assert len(again) == 14
    assert again.n_bytes == data.n_bytes


def test_an_empty_dataset_can_be_saved(tmp_path: Path) -> None:
    ImitationSet().save(tmp_path)
    again = ImitationSet()
    again.load(tmp_path)
    assert len(again) == 0
    assert again.n_bytes == 0


def test_a_damaged_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"incomplete: imitation\.safetensors, imitation\.json missing"):
        ImitationSet().load(tmp_path)
    data = ImitationSet()
    data.extend(samples(3))
    data.save(tmp_path)
    (tmp_path / "imitation.json").write_text('{"update": 0, "prompts": []}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="damaged: 0 prompts for 3 answers"):
        ImitationSet().load(tmp_path)


@pytest.mark.parametrize("option", ["max_size", "max_age", "half_life"])
def test_a_limit_must_be_above_zero(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} must be above 0"):
        ImitationSet(**{option: 0})  # type: ignore[arg-type]


# --- runs ------------------------------------------------------------------------------------------------------------


def learner(policy: VLMPolicy, **options: Any) -> PPO:
    arguments: dict[str, Any] = {
        "settings": SETTINGS,
        "rollout": RolloutSettings(n_envs=4, n_steps=16),
        "guidance": ThoughtSFT(),
        "thinker": OracleTeacher(),
        "seed": 3,
    }
    return PPO(policy, easy_env, **(arguments | options))


@pytest.mark.parametrize("kind", ["oracle", "merged"])
def test_a_resumed_run_goes_on_bit_for_bit(schooled: Path, tmp_path: Path, kind: str) -> None:
    def fresh(folder: Path) -> PPO:
        # Whole episodes, so that nothing is under way where the run is cut.
        teachers = {"thinker": OracleTeacher()} if kind == "oracle" else {"thinker": None, "teacher": TeacherManager()}
        episodes = RolloutSettings(n_envs=4, hands=4, attempts=1)
        return learner(VLMPolicy.from_pretrained(folder), rollout=episodes, **teachers)

    whole, first = fresh(schooled), fresh(schooled)
    whole.learn(updates=2)
    with pytest.raises(KeyboardInterrupt):
        first.learn(updates=2, callbacks=[Keep(then_stop=True)])
    folder = first.save(tmp_path / "run")
    second = fresh(folder)
    second.restore(folder)
    assert len(second.guidance.data) == len(first.guidance.data) > 0
    second.learn(updates=2)
    assert largest_difference(weights_of(whole.policy), weights_of(second.policy)) == 0.0


class Keep:
    """Keeps the metrics of every update, and may stop the run after the first."""

    def __init__(self, *, then_stop: bool = False) -> None:
        self.metrics: list[dict[str, float]] = []
        self.then_stop = then_stop

    def on_phase(self, name: str, total: int | None) -> None: ...

    def on_progress(self, n: int) -> None: ...

    def on_update(self, learner: Any, rollout: Rollout, metrics: dict[str, float]) -> None:
        del learner, rollout
        self.metrics.append(metrics)
        if self.then_stop:
            raise KeyboardInterrupt


def test_the_oracle_answers_as_the_expert_of_every_step_would(student: VLMPolicy) -> None:
    collector = RolloutCollector(easy_env, 2, ask_expert=True)
    rollout = collector.play_episodes(student, range(4), generator=generator())
    collector.close()
    steps = rollout.steps
    for step, correction in zip(steps, OracleTeacher().think(steps, student.template), strict=True):
        if correction.answer is None:
            assert correction.solvable is False
            continue
        answer = parse_answer(correction.answer, student.template.required_keys)
        assert answer.valid_format
        assert answer.fields["cards"] == list(step.info["numbers"])
        assert answer.action in step.prompt.legal_actions
    assert any(step.expert_answer for step in steps)


def test_nobody_asks_the_expert_unless_it_teaches(student: VLMPolicy) -> None:
    assert all(step.expert_answer is None for step in collected(student).steps)


def test_an_environment_without_an_expert_cannot_be_taught_by_an_oracle() -> None:
    import gymnasium as gym

    with pytest.raises(ConfigError, match="CartPole-v1 has no expert_thought"):
        RolloutCollector(lambda: gym.make("CartPole-v1"), 1, ask_expert=True)


def test_a_thinkers_state_and_metrics_are_part_of_the_run(schooled: Path, tmp_path: Path) -> None:
    keep = Keep()
    thinker = Saying(Correction(answer=TEACHER))
    algorithm = learner(VLMPolicy.from_pretrained(schooled), thinker=thinker)
    algorithm.learn(updates=1, callbacks=[keep])
    assert keep.metrics[0]["teacher/asked"] == len(thinker.asked) > 0
    assert keep.metrics[0]["guidance/seconds"] > 0
    folder = algorithm.save(tmp_path / "run")
    again = learner(VLMPolicy.from_pretrained(folder), thinker=Saying())
    again.restore(folder)
    assert again.thinker.restored == {"asked": len(thinker.asked)}


# --- refusals --------------------------------------------------------------------------------------------------------


def test_guidance_by_scores_refuses_a_teacher_that_only_thinks() -> None:
    from gtr_agents.guidance.reverse_kl import ReverseKL

    with pytest.raises(ConfigError, match="only writes thoughts"):
        PPO(tiny_policy(), easy_env, guidance=ReverseKL(), teacher=TeacherManager(), thinker=OracleTeacher())
    with pytest.raises(ConfigError, match="ThoughtSFT needs a teacher"):
        PPO(tiny_policy(), easy_env, guidance=ThoughtSFT())
    PPO(tiny_policy(), easy_env, guidance=ThoughtSFT(source="own_success"))


def test_guidance_per_token_needs_a_ratio_per_token() -> None:
    from gtr_agents.guidance.reverse_kl import ReverseKL

    guidance = ReverseKL(reduce="per_token")
    with pytest.raises(ConfigError, match=r"set ppo\.ratio to token"):
        PPO(tiny_policy(), easy_env, guidance=guidance, teacher=TeacherManager())
    PPO(tiny_policy(), easy_env, guidance=guidance, teacher=TeacherManager(), settings=PPOSettings(ratio="token"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weight": 0.0}, ConfigError, "weight must be finite and above 0"),
        ({"source": "own_succes"}, UnknownNameError, "Did you mean 'own_success'"),
        ({"temperature": 0.0}, ConfigError, "0 < temperature <= max_temperature"),
        ({"temperature": 1.0}, ConfigError, "0 < temperature <= max_temperature"),
        ({"retries": 0}, ConfigError, "retries must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        ThoughtSFT(**options)
