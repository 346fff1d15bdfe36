"""What algorithms that follow the gradient of answers share: minibatches, accumulation, terms, processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from gtr_agents.adam import Adam, ZeroAdam
from gtr_agents.advantages import normalise
from gtr_agents.algorithms.base import Learner, MakeEnv, RolloutSettings
from gtr_agents.batching import Batch, make_batch, micro_batches, minibatches, token_batches
from gtr_agents.errors import NotFiniteError, TrainingError
from gtr_agents.losses import learning_rate_at, masked_mean
from gtr_agents.metrics import explained_variance
from gtr_agents.seeding import numpy_generator
from gtr_agents.types import Rollout, Share, Step

if TYPE_CHECKING:
    from gtr_agents.guidance.base import Guidance
    from gtr_agents.guidance.imitation import Imitation
    from gtr_agents.policies.vlm import PolicyOutput, VLMPolicy

Terms = dict[str, list[tuple[float, float]]]
"""Values with their weights, by name."""
Piece = NDArray[np.intp]
"""Numbers of the samples that one forward pass takes."""
Loss = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""A loss with gradient, and its detached terms by name."""
FLAT = 0.02
"""Steps whose raw advantage is smaller than this, in standard deviations, count as flat."""
STOP_FACTOR = 1.5
"""The epochs end when the policy has moved by this many times ``target_kl`` (as in Stable-Baselines3)."""


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """How an update is made, whatever the algorithm. Defaults are those of GTR-Turbo (arXiv 2512.13043)."""

    clip_range: PositiveFloat = 0.1
    """Clip range of the ratio."""
    epochs: PositiveInt = 4
    """Passes over the rollout per update."""
    minibatch_size: PositiveInt = 128
    """Steps per optimizer step."""
    micro_batch_size: PositiveInt = 256
    """Steps per forward pass; gradients are accumulated to the minibatch."""
    micro_batch_tokens: PositiveInt | None = None
    """Padded tokens per forward pass, n * (longest prompt + longest answer), a picture's included; null for no limit.
    It bounds memory where lengths differ, and the gradient stays that of the minibatch."""
    learning_rate: NonNegativeFloat = 1e-5
    """Learning rate of the first update."""
    final_learning_rate: NonNegativeFloat = 1e-9
    """Where the schedule ends after the last update."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls over the run; constant keeps the first one."""
    adam_eps: float = 1e-7
    """Adam's epsilon."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Adam's averaging constants."""
    max_grad_norm: PositiveFloat = 1.0
    """The gradient norm is clipped to this (ours; the reference's clip has no effect)."""
    entropy_coef: NonNegativeFloat = 0.0
    """Weight of the bonus for the entropy of the sampled tokens' distributions, mean over a step's tokens."""
    kl_coef: NonNegativeFloat = 0.0
    """Weight of the divergence from the model that training began with (estimator k3), mean over a step's tokens."""
    target_kl: PositiveFloat | None = None
    """An update ends early when ``approx_kl`` of a minibatch exceeds 1.5 times this; null never."""
    skip_flat: bool = False
    """True leaves out steps whose advantage is below FLAT (all attempts agree): cost without gradient (ours)."""
    max_skipped: Share = 0.05
    """Samples without a finite loss are skipped and counted; a larger share of them than this stops the run."""


@dataclass(frozen=True, slots=True)
class Samples:
    """This process's steps of a rollout with their normalised advantages and value targets, [N] each."""

    steps: list[Step]
    """The steps."""
    advantages: NDArray[np.float64]
    """Advantages as they are trained on, [N]."""
    returns: NDArray[np.float64]
    """Value targets, [N]."""
    first: int = 0
    """Number of the first one among the samples of all processes."""

    def among(self, chosen: NDArray[np.intp]) -> NDArray[np.intp]:
        """Which of the chosen samples of all processes are here; numbers that count these only."""
        return chosen[(chosen >= self.first) & (chosen < self.first + len(self.steps))] - self.first

    @property
    def lengths(self) -> NDArray[np.int64]:
        """What orders steps by padding, int64 [N]: the prompt's class, then the response's tokens."""
        return np.array([s.prompt.length_class * 10_000 + len(s.response.token_ids) for s in self.steps])

    def pieces(self, chosen: NDArray[np.intp], settings: UpdateSettings) -> Iterator[NDArray[np.intp]]:
        """Cut chosen samples of this process into what one forward pass takes."""
        if settings.micro_batch_tokens is None:
            return micro_batches(chosen, self.lengths, settings.micro_batch_size)
        prompts = np.array([len(s.response.prompt_ids) for s in self.steps])
        answers = np.array([len(s.response.token_ids) for s in self.steps])
        return token_batches(chosen, prompts, answers, settings.micro_batch_size, settings.micro_batch_tokens)

    def record(self, index: int) -> dict[str, Any]:
        """Everything that the loss of one sample comes from but the picture and the weights, as JSON holds it."""
        step = self.steps[index]
        response = step.response
        return {
            "sample": index,
            "prompt": step.prompt.text,
            "answer": response.text,
            "token_ids": response.token_ids.tolist(),
            "log_probs": [str(value) for value in response.log_probs],  # as text, because JSON knows no nan
            "value": str(response.value),
            "advantage": str(self.advantages[index]),
            "return": str(self.returns[index]),
        }


class PolicyGradient(Learner):
    """Base of the algorithms: everything of an update but the advantages and the loss of a batch.

    Dropout is off throughout, so the ratio is 1 before the first optimizer step, which is measured in every update.

    Args:
        policy: the policy to train, in place.
        env: id of a registered environment, or a function that makes one with text actions.
        settings: how an update is made.
        **kwargs: as :class:`Learner`.

    Raises:
        ConfigError: if settings contradict each other.
    """

    settings_class: ClassVar[type[UpdateSettings]] = UpdateSettings
    uses_values: bool = False
    """True if the value head is trained."""

    def __init__(self, policy: VLMPolicy, env: str | MakeEnv, *, settings: Any = None, **kwargs: Any) -> None:
        super().__init__(policy, env, **kwargs)
        self.settings = settings or self.settings_class()
        self.check(self.settings, self.rollout_settings, self.guidance)
        self._not_finite: list[int] = []
        self._initial: dict[str, torch.Tensor] | None = None
        if self.ranks.split:
            policy.split(free_layers=self.ranks.free_layers)
        adam = Adam if self.ranks.zero is None else ZeroAdam
        self.adam = adam(
            policy,
            self.ranks,
            limit=self.settings.max_grad_norm,
            lr=self.settings.learning_rate,
            eps=self.settings.adam_eps,
            betas=self.settings.adam_betas,
        )

    # --- to be provided by the algorithm -----------------------------------------------------------------------------

    @classmethod
    def check(cls, settings: Any, rollout: RolloutSettings, guidance: Guidance | None) -> None:
        """Raise :class:`ConfigError` if the settings contradict each other; before anything is built."""

    def advantages(self, rollout: Rollout) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Raw advantages and value targets of all steps of a rollout, trajectory by trajectory, [N] each."""
        raise NotImplementedError

    def scaled(self, advantages: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn the raw advantages of all processes into those that are trained on; [N]."""
        return normalise(advantages)

    def policy_loss(self, batch: Batch, output: PolicyOutput) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean loss of the steps of a batch, with gradient, and its terms without: ``approx_kl`` and others."""
        raise NotImplementedError

    # --- persistence --------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, folder: str | Path, env: str | MakeEnv = "Points24-v0", **kwargs: Any) -> Self:
        """Load what :meth:`save` wrote, to act or to go on training.

        Args:
            folder: a checkpoint folder.
            env: the environment to go on training in.
            **kwargs: as the constructor; pass the same settings, guidance and teacher to go on training.
        """
        from gtr_agents.policies.vlm import VLMPolicy

        algorithm = cls(VLMPolicy.from_pretrained(folder), env, **kwargs)
        algorithm.restore(folder)
        return algorithm

    def state(self) -> dict[str, Any]:
        """The optimizer's state, and the weights that training began with if they are needed."""
        initial = {} if self._initial is None else {"initial": self._initial}
        return {"optimizer": self.adam.moments()} | initial

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self._initial = state.get("initial")
        self.adam.load(state["optimizer"])

    def update(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Train on a rollout.

        Args:
            rollout: freshly collected with the current weights, rewards complete.
            progress: share of the run that is done, in [0, 1): where the learning rate schedule stands.

        Returns:
            Metrics under ``train/``.

        Raises:
            TrainingError: if an advantage is not finite.
            NotFiniteError: if the loss or gradient of too many samples is not; it holds those without a finite loss.
        """
        s = self.settings
        learning_rate = learning_rate_at(s.schedule, progress, s.learning_rate, s.final_learning_rate)
        own, returns = self.advantages(rollout)
        parts = self.ranks.gather((own, returns, [step.response.value for step in rollout.steps]))
        raw = np.concatenate([part for part, _, _ in parts])  # of all processes: all share one normalisation
        if not np.isfinite(raw).all():
            raise TrainingError(
                "An advantage is not finite: a reward, a guidance reward or a value was nan or infinite."
            )
        first = sum(len(part) for part, _, _ in parts[: self.ranks.index])
        samples = Samples(rollout.steps, self.scaled(raw)[first : first + len(own)], returns, first)
        keep = np.flatnonzero(np.abs(raw) > FLAT * raw.std()) if s.skip_flat else np.arange(len(raw))
        if s.kl_coef:
            self._score_initial(rollout)
        for group in self.adam.optimizer.param_groups:
            group["lr"] = learning_rate
        metrics: Terms = defaultdict(list)
        with self.policy.in_pieces():
            ratio_error, skipped, enough = self._passes(samples, keep, metrics)
            self.adam.gather()
        metrics.pop("ratio_error", None)
        summary = {f"train/{name}": mean for name, mean in self._means(metrics).items()}
        summary["train/ratio_error_first_epoch"] = max(self.ranks.gather(ratio_error))
        summary["train/learning_rate"] = learning_rate
        summary["train/samples"] = float(len(keep))
        if s.target_kl is not None:
            summary["train/stopped_early"] = float(enough)
        summary["train/skipped_samples"] = float(skipped)
        summary["train/advantage_std"] = float(raw.std())
        if self.uses_values:
            values, targets = [v for _, _, part in parts for v in part], np.concatenate([part for _, part, _ in parts])
            summary["train/explained_variance"] = explained_variance(values, targets)
        return summary

    def _passes(self, samples: Samples, keep: NDArray[np.intp], metrics: Terms) -> tuple[float, int, bool]:
        """Pass over the samples that are kept, in minibatches.

        Returns:
            The largest log-ratio before the first optimizer step, how many samples were skipped, and whether the passes
            ended early because the policy had moved far enough.
        """
        s = self.settings
        rng = numpy_generator(self.seed, "minibatches", self.n_updates)
        draws = numpy_generator(self.seed, "imitation", self.n_updates)
        ratio_error, skipped = 0.0, 0
        self._not_finite.clear()
        for epoch in range(s.epochs):
            imitated = [] if self.guidance is None else self.guidance.draw(len(keep), draws)
            pieces = list(minibatches(len(keep), s.minibatch_size, rng))
            shares = [imitated[number :: len(pieces)] for number in range(len(pieces))]
            for number, (minibatch, share) in enumerate(zip(pieces, shares, strict=True)):
                trained = self._minibatch_step(samples, keep[minibatch], share, metrics)
                if epoch == 0 and number == 0:
                    ratio_error = max((error for error, _ in metrics["ratio_error"]), default=0.0)
                if trained is None:
                    return ratio_error, skipped, True
                skipped += len(minibatch) - trained
                if skipped > s.max_skipped * len(keep) * s.epochs:
                    raise NotFiniteError(
                        f"{skipped} of {len(keep) * s.epochs} samples had no finite loss or gradient by epoch {epoch}, "
                        f"minibatch {number}: more than max_skipped={s.max_skipped:g}. Lower the learning rate.",
                        [samples.record(index) for index in self._not_finite],
                    )
        return ratio_error, skipped, False

    def _score_initial(self, rollout: Rollout) -> None:
        """Note in every step what the model that training began with says of its tokens."""
        if self._initial is None and not self.policy.is_adapted:
            self._initial = self.policy.merge_state()  # this is the first update
        steps = rollout.steps
        with self.policy.using_initial(self._initial):
            scores = self.policy.score(
                [s.prompt for s in steps],
                [s.response.token_ids for s in steps],
                temperature=self.policy.temperature,
            )
        for step, score in zip(steps, scores, strict=True):
            step.initial_log_probs = score

    def _means(self, metrics: Terms) -> dict[str, float]:
        """Weighted means of all values of all processes."""
        gathered = self.ranks.gather(dict(metrics))
        means = {}
        for name in sorted({name for part in gathered for name in part}):
            values, weights = zip(*(pair for part in gathered for pair in part.get(name, ())), strict=True)
            means[name] = float(np.average(values, weights=weights))
        return means

    def _minibatch_step(
        self,
        samples: Samples,
        chosen: NDArray[np.intp],
        imitated: list[Imitation],
        metrics: Terms,
    ) -> int | None:
        """Make one optimizer step on the chosen samples and answers to imitate, and add its terms to the metrics.

        Args:
            samples: those of this process.
            chosen: the minibatch, by numbers that count the samples of all processes.
            imitated: answers to imitate.
            metrics: values with their weights, by name.

        Returns:
            Number of samples that were trained on by all processes; 0 if the gradient was not finite and no step was
            made, None if none was made because the policy has moved far enough.
        """
        own, used, moved = samples.among(chosen), 0, 0.0
        self.adam.clear()

        def loss_of(piece: Piece) -> Loss:
            shown = piece if len(piece) else np.array([0])
            steps = [samples.steps[i] for i in shown]
            batch = make_batch(steps, samples.advantages[shown], samples.returns[shown], self.policy.device)
            loss, terms = self.losses(batch)
            return len(piece) / len(chosen) * loss, terms

        trained_pieces, bad = self._accumulate(samples.pieces(own, self.settings), loss_of)
        self._not_finite += bad
        for piece, terms in trained_pieces:
            used += len(piece)
            moved += len(piece) * float(terms["approx_kl"])
            for name, value in terms.items():
                metrics[name].append((float(value), len(piece)))
        if imitated:
            for name, mean in self._imitate(imitated).items():
                metrics[name].append((mean, 1.0))
        trained = sum(self.ranks.gather(used))
        target = self.settings.target_kl
        if target is not None and trained and sum(self.ranks.gather(moved)) / trained > STOP_FACTOR * target:
            return None
        if not trained:
            return 0
        norm = self.adam.step()
        if not np.isfinite(norm):
            return 0
        metrics["grad_norm"].append((norm, 1.0))
        return trained

    def _imitate(self, imitated: list[Imitation]) -> dict[str, float]:
        """Add the gradient of the mean cross-entropy of the trained tokens of some answers, at temperature 1.

        It goes into the same optimizer step as PPO's: one learning rate, one clip of the gradient's norm. Several
        processes, which all know the same answers, share them.

        Returns:
            ``sft_loss`` in nats per token, and the share of samples without a finite loss, which are left out.
        """
        assert self.guidance is not None
        weight = self.guidance.weight
        n_tokens = sum(int(sample.mask.sum()) for sample in imitated)
        own = list(self.ranks.share(imitated))

        def loss_of(piece: Piece) -> Loss:
            chosen = [own[i] for i in piece] or imitated[:1]
            output = self.policy.evaluate([s.prompt for s in chosen], [s.token_ids for s in chosen], temperature=1.0)
            trained = torch.zeros_like(output.mask)
            for row, sample in enumerate(chosen):
                trained[row, : len(sample.mask)] = torch.from_numpy(sample.mask)
            loss = -output.log_probs[trained].sum() / max(n_tokens, 1)
            return weight * loss if len(piece) else 0.0 * loss, {"loss": loss.detach()}

        trained_pieces, bad = self._accumulate(self._imitated_pieces(own), loss_of)
        total = sum(self.ranks.gather(sum(float(terms["loss"]) for _, terms in trained_pieces)))
        return {"sft_loss": total, "sft_skipped": sum(self.ranks.gather(len(bad))) / len(imitated)}

    def _imitated_pieces(self, imitated: list[Imitation]) -> Iterator[NDArray[np.intp]]:
        """Cut answers to imitate into what one forward pass takes."""
        size, budget = self.settings.micro_batch_size, self.settings.micro_batch_tokens
        answers = np.array([len(s.token_ids) for s in imitated])
        if budget is None:
            lengths = np.array([s.prompt.length_class * 10_000 for s in imitated]) + answers
            return micro_batches(np.arange(len(imitated)), lengths, size)
        prompts = self.policy.prompt_lengths([s.prompt for s in imitated])
        return token_batches(np.arange(len(imitated)), prompts, answers, size, budget)

    def _accumulate(
        self, pieces: Iterable[Piece], loss_of: Callable[[Piece], Loss]
    ) -> tuple[list[tuple[Piece, dict[str, torch.Tensor]]], list[int]]:
        """Add the gradient of samples, piece by piece, without those whose loss is not finite.

        A piece with a bad sample is halved until the sample is alone; nothing of it reaches the gradient. Processes
        that share the model take the same passes: who has no piece left computes an empty one, and a forward pass that
        was bad in one of them is repeated by the others.

        Args:
            pieces: samples of this process, cut into what one forward pass takes.
            loss_of: weighted loss of a piece, and its terms; for an empty piece 0 with a graph like the others'.

        Returns:
            The pieces that were used with their terms, and the samples that were not.
        """
        waiting = list(pieces)[::-1]
        empty = np.empty(0, np.intp)
        used: list[tuple[Piece, dict[str, torch.Tensor]]] = []
        bad: list[int] = []
        while any(self._of_all(bool(waiting))):
            piece = waiting.pop() if waiting else empty
            loss, terms = loss_of(piece)
            finite = not len(piece) or bool(torch.isfinite(loss))
            if all(self._of_all(finite)):
                self.adam.backward(loss)
                used += [(piece, terms)] if len(piece) else []
                continue
            self.policy.forget_pass()
            if finite:
                waiting += [piece] if len(piece) else []
            elif len(piece) == 1:
                bad.append(int(piece[0]))
            else:
                half = len(piece) // 2
                waiting += [piece[half:], piece[:half]]
        return used, bad

    def _of_all(self, flag: bool) -> list[bool]:
        """A flag of all processes that must compute in step with this one; of this one alone if none must."""
        return self.ranks.gather(flag) if self.adam.in_step else [flag]

    def losses(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Total loss of a batch, and its detached terms by name."""
        s = self.settings
        output = self.policy.evaluate(batch.prompts, batch.token_ids, entropy_gradient=s.entropy_coef > 0)
        loss, terms = self.policy_loss(batch, output)
        if s.entropy_coef:
            entropy = masked_mean(output.entropy, batch.mask, dim=-1).mean()
            loss = loss - s.entropy_coef * entropy
            terms["entropy"] = entropy.detach()
        if batch.initial_log_probs is not None:
            log_ratio = torch.where(batch.mask, batch.initial_log_probs - output.log_probs, 0.0)
            divergence = masked_mean(log_ratio.exp() - 1.0 - log_ratio, batch.mask, dim=-1).mean()
            loss = loss + s.kl_coef * divergence
            terms["kl_to_initial"] = divergence.detach()
        return loss, terms
