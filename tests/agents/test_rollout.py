"""Playing episodes: order, rewards, endings and bootstrap values, with actors that play by rule."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count

import pytest
from small_models import CountingEnv, ScriptedActor, prompts_of, text_env, tiny_policy

from gtr_agents.errors import CheckpointError
from gtr_agents.rollout import RolloutCollector
from gtr_agents.seeding import torch_generator
from gtr_agents.types import Prompt, Response, Trajectory


def counting(n_envs: int = 2, goal: int = 3, limit: int = 5) -> RolloutCollector:
    return RolloutCollector(lambda: CountingEnv(goal, limit), n_envs, (3.0, -2.0))


def to_three(state: str) -> str:
    return "up" if int(state) < 3 else "stop"


def texts(trajectory: Trajectory) -> list[str]:
    return [step.prompt.text.split("|")[1] for step in trajectory.steps]


def test_an_episode_is_played_to_its_end_with_the_prompt_of_each_state() -> None:
    rollout = counting().play_episodes(ScriptedActor(to_three), [4])
    [episode] = rollout.trajectories
    assert texts(episode) == ["0", "1", "2", "3"]
    assert [step.reward for step in episode.steps] == [0.0, 0.0, 0.0, 10.0]
    assert [step.format_reward for step in episode.steps] == [3.0] * 4
    assert [step.terminated for step in episode.steps] == [False, False, False, True]
    assert episode.success
    assert episode.complete
    assert episode.solvable
    assert (episode.seed, episode.episode_return, episode.bootstrap_value) == (4, 10.0, 0.0)


def test_a_step_knows_what_was_told_before_its_action() -> None:
    [episode] = counting().play_episodes(ScriptedActor(to_three), [0]).trajectories
    assert [step.info["numbers"] for step in episode.steps] == [[0], [1], [2], [3]]
    assert "legal_actions" not in episode.steps[0].info
    assert episode.steps[0].prompt.legal_actions == ("up", "stop")
    assert episode.steps[2].prompt.image[0, 0, 0] == 80


def test_the_prompt_holds_the_instructions_of_the_environment() -> None:
    actor = ScriptedActor(to_three)
    counting().play_episodes(actor, [0])
    assert actor.seen[0].text == "Count.|0|up, stop"


def test_episodes_come_back_in_the_order_of_their_seeds_whoever_ends_first() -> None:
    ended: list[int] = []
    lengths = {0: 5, 1: 1, 2: 2, 3: 1, 4: 3}

    class Env(CountingEnv):
        def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            self.limit = lengths[seed]
            return super().reset(seed=seed, options=options)

    collector = RolloutCollector(Env, 2)
    rollout = collector.play_episodes(
        ScriptedActor(lambda _: "up"), [0, 1, 2, 3, 4], on_episode=lambda t: ended.append(t.seed)
    )
    assert [t.seed for t in rollout.trajectories] == [0, 1, 2, 3, 4]
    assert [len(t.steps) for t in rollout.trajectories] == [5, 1, 2, 1, 3]
    assert ended == [1, 2, 3, 0, 4]
    assert [texts(t) for t in rollout.trajectories] == [
        [str(i) for i in range(len(t.steps))] for t in rollout.trajectories
    ]
    assert rollout.steps == [step for t in rollout.trajectories for step in t.steps]


def test_idle_slots_are_not_asked_for_answers() -> None:
    actor = ScriptedActor(to_three)
    counting(n_envs=3).play_episodes(actor, [0, 0])
    assert len(actor.seen) == 8


def test_equal_seeds_are_equal_hands() -> None:
    collector = RolloutCollector(lambda: text_env(illegal="terminate"), 3)
    rollout = collector.play_episodes(ScriptedActor(lambda _: "="), [7, 7, 8])
    first, second, other = (t.steps[0] for t in rollout.trajectories)
    assert first.info["cards"] == second.info["cards"] != other.info["cards"]


def test_an_unreadable_answer_is_the_illegal_action_and_an_invalid_format() -> None:
    rollout = counting(limit=2).play_episodes(ScriptedActor(lambda _: None), [1])
    [episode] = rollout.trajectories
    assert [step.reward for step in episode.steps] == [-1.0, -1.0]
    assert [step.format_reward for step in episode.steps] == [-2.0, -2.0]
    assert not any(step.legal for step in episode.steps)
    assert not episode.solvable


def test_an_unreadable_answer_costs_the_penalty_of_the_real_game() -> None:
    collector = RolloutCollector(lambda: text_env(illegal="terminate"), 1)
    [episode] = collector.play_episodes(ScriptedActor(lambda _: None), [0]).trajectories
    assert [(s.reward, s.legal, s.terminated) for s in episode.steps] == [(-1.0, False, True)]


def test_a_time_limit_is_bootstrapped_with_the_value_of_the_final_state() -> None:
    actor = ScriptedActor(lambda _: "up")
    [episode] = counting(limit=4).play_episodes(actor, [0]).trajectories
    last = episode.steps[-1]
    assert (last.terminated, last.truncated) == (False, True)
    assert [p.text.split("|")[1] for p in actor.valued] == ["4"]  # the state after the last action
    assert episode.bootstrap_value == 4.5
    assert not episode.success


def test_a_real_time_limit_is_told_apart_from_a_termination() -> None:
    collector = RolloutCollector(lambda: text_env(max_tokens=8), 1)
    cut, ended = (
        collector.play_episodes(ScriptedActor(rule, lambda _: 1.5), [3]).trajectories[0]
        for rule in (lambda _: "nonsense", lambda _: "=")
    )
    assert (len(cut.steps), cut.steps[-1].terminated, cut.steps[-1].truncated) == (9, False, True)
    assert cut.bootstrap_value == 1.5
    assert (len(ended.steps), ended.steps[-1].terminated, ended.steps[-1].truncated) == (1, True, False)
    assert ended.bootstrap_value == 0.0


# --- a number of steps, whatever the episodes do ----------------------------------------------------------------------


def test_steps_are_rounded_up_to_a_multiple_of_the_environments() -> None:
    rollout = counting(n_envs=3).play_steps(ScriptedActor(to_three), 7, count())
    assert len(rollout.steps) == 9


def test_an_episode_that_goes_on_is_cut_and_bootstrapped_with_its_next_state() -> None:
    actor, collector = ScriptedActor(to_three), counting(n_envs=2)
    first = collector.play_steps(actor, 4, count())
    assert [(texts(t), t.complete, t.bootstrap_value) for t in first.trajectories] == [
        (["0", "1"], False, 2.5),
        (["0", "1"], False, 2.5),
    ]
    second = collector.play_steps(actor, 6, count(50))
    assert [(texts(t), t.complete, t.bootstrap_value, t.seed) for t in second.trajectories] == [
        (["2", "3"], True, 0.0, 0),
        (["2", "3"], True, 0.0, 1),
        (["0"], False, 1.5, 50),
        (["0"], False, 1.5, 51),
    ]
    assert [t.success for t in second.trajectories] == [True, True, False, False]
    assert [t.solvable for t in second.trajectories] == [True, False, True, False]


def test_the_return_of_an_episode_counts_what_earlier_rollouts_paid() -> None:
    actor, collector = ScriptedActor(lambda state: None if state == "0" else "stop"), counting(n_envs=1, limit=4)
    parts = [collector.play_steps(actor, 1, count()).trajectories[0] for _ in range(5)]
    assert [part.episode_return for part in parts] == [-1.0, -2.0, -3.0, -4.0, -1.0]
    assert [part.complete for part in parts] == [False, False, False, True, False]
    assert [len(part.steps) for part in parts] == [1] * 5


def test_an_episode_that_ends_with_the_rollout_is_not_cut() -> None:
    rollout = counting(n_envs=1).play_steps(ScriptedActor(to_three), 4, count())
    [episode] = rollout.trajectories
    assert episode.complete
    assert episode.bootstrap_value == 0.0


def test_no_step_is_lost_or_counted_twice() -> None:
    actor, collector = ScriptedActor(to_three), counting(n_envs=2)
    n_steps = [len(collector.play_steps(actor, 3, count()).steps) for _ in range(5)]
    assert n_steps == [4] * 5
    assert len(actor.seen) == 20


def test_running_episodes_are_found_again_by_seed_and_actions() -> None:
    actor, collector, other = ScriptedActor(to_three), counting(n_envs=3), counting(n_envs=3)
    collector.play_steps(actor, 6, count())
    saved = json.loads(json.dumps(collector.running()))
    assert [(episode["seed"], episode["actions"]) for episode in saved] == [(n, ["up", "up"]) for n in range(3)]
    other.resume(actor, saved)
    assert other.running() == saved
    rest = [c.play_steps(actor, 6, count(50)).trajectories for c in (collector, other)]
    assert [texts(t) for t in rest[0]] == [texts(t) for t in rest[1]] == [["2", "3"]] * 3
    assert [t.episode_return for t in rest[0]] == [t.episode_return for t in rest[1]]
    assert [t.solvable for t in rest[0]] == [t.solvable for t in rest[1]]


def test_an_environment_that_does_not_come_back_is_named() -> None:
    actor, collector = ScriptedActor(to_three), counting(n_envs=1)
    collector.play_steps(actor, 2, count())
    (episode,) = collector.running()
    for changed in ({"actions": ["up"]}, {"prompt": "other"}, {"actions": ["stop"]}):
        with pytest.raises(CheckpointError, match=r"Environment 0 \(seed 0\) did not come back"):
            counting(n_envs=1).resume(actor, [episode | changed])


def test_playing_whole_episodes_drops_those_that_were_running() -> None:
    actor, collector = ScriptedActor(to_three), counting(n_envs=1)
    collector.play_steps(actor, 2, count())
    [episode] = collector.play_episodes(actor, [9]).trajectories
    assert texts(episode) == ["0", "1", "2", "3"]


def test_a_policy_plays_and_its_answers_fit_the_prompts() -> None:
    policy = tiny_policy()
    collector = RolloutCollector(lambda: text_env(illegal="terminate"), 2)
    rollout = collector.play_episodes(policy, [0, 1, 2])
    expected = [r.text for r in policy.act(prompts_of(n=1))]
    assert rollout.trajectories[0].steps[0].response.text == expected[0]
    collector.close()
    assert rollout.seconds > 0


@pytest.mark.parametrize("n_envs", [1, 4])
def test_greedy_play_does_not_depend_on_how_many_play_at_once(n_envs: int) -> None:
    policy = tiny_policy()
    collector = RolloutCollector(lambda: text_env(max_tokens=8), n_envs)
    rollout = collector.play_episodes(policy, [0, 1])
    assert [len(t.steps) for t in rollout.trajectories] == [9, 9]
    assert rollout.trajectories[0].steps[0].response.text == policy.act(prompts_of(n=1))[0].text


def test_noise_of_its_own_makes_an_episode_independent_of_the_others() -> None:
    """Each seed has its generator: the same answers alone, among others, and in another order."""
    policy = tiny_policy(max_new_tokens=6)
    answers: list[dict[int, list[str]]] = []
    for n_envs, seeds in ((3, [5, 6, 7, 8, 9]), (1, [9, 7]), (2, [9, 8, 7])):
        collector = RolloutCollector(lambda: text_env("EZPoints-v0", max_tokens=4), n_envs)
        rollout = collector.play_episodes(policy, seeds, generator=lambda seed: torch_generator(1, "own", seed))
        answers.append({t.seed: [s.response.text for s in t.steps] for t in rollout.trajectories})
        collector.close()
    for few in answers[1:]:
        assert few == {seed: answers[0][seed] for seed in few}
    assert len({tuple(texts) for texts in answers[0].values()}) == 5


def test_an_answer_that_could_not_be_got_ends_the_episode_without_an_action() -> None:
    class Unreachable(ScriptedActor):
        def _respond(self, prompt: Prompt) -> Response:
            response = super()._respond(prompt)
            return replace(response, failure="no line") if prompt.text.split("|")[1] == "2" else response

    told: list[Trajectory] = []
    actor = Unreachable(to_three)
    rollout = counting().play_episodes(actor, [0, 1, 2], on_episode=told.append)
    assert [len(t.steps) for t in rollout.trajectories] == [2, 2, 2]
    assert all(not t.complete and not t.success and t.failure == "no line" for t in rollout.trajectories)
    assert len(told) == 3
    assert actor.valued == []
