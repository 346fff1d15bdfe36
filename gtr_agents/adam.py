"""Adam, and who keeps what of it: one process, processes with copies or pieces of the model, DeepSpeed's ZeRO."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from gtr_agents.errors import ConfigError
from gtr_agents.policies.split import clip_gradients, cut_like, gathered, is_piece

if TYPE_CHECKING:
    from gtr_agents.policies.vlm import VLMPolicy
    from gtr_agents.ranks import Ranks

Moments = dict[int, Any]
"""Whole state of every parameter, by its number: ``step``, ``exp_avg`` and ``exp_avg_sq``."""
NAMES = ("exp_avg", "exp_avg_sq")
"""What Adam keeps of a parameter: running means of its gradient, and of its square."""


class Adam:
    """Makes steps of the gradients of all processes, on copies or on pieces of the model.

    Args:
        policy: whose parameters are trained.
        ranks: the processes that train together.
        limit: the norm of the gradient is clipped to this.
        **options: as :class:`torch.optim.Adam` takes them.
    """

    def __init__(self, policy: VLMPolicy, ranks: Ranks, *, limit: float, **options: Any) -> None:
        self.policy = policy
        self.ranks = ranks
        self.limit = limit
        with policy.in_pieces():
            self.parameters = policy.trainable_parameters()
            """What is trained, as it is while it trains."""
        # Pieces and whole parameters apart, since torch does not step them in one call.
        groups = ([p for p in self.parameters if is_piece(p) is piece] for piece in (True, False))
        self.optimizer = torch.optim.Adam([{"params": group} for group in groups if group], **options)
        self._kept: Moments = {}
        """Whole moments after the last update where processes share them; of the leading process only."""

    @property
    def in_step(self) -> bool:
        """True if all processes must take as many backward passes, at the same time."""
        return self.policy.is_split

    @property
    def shares_moments(self) -> bool:
        """True if no process has all moments."""
        return self.policy.is_split

    def clear(self) -> None:
        """Drop the gradient that has been added up."""
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a loss."""
        loss.backward()

    def step(self) -> float:
        """Sum the gradients of all processes, clip the sum and make a step.

        Returns:
            The norm before it was clipped; if it is not finite, no step was made.
        """
        self.ranks.sum_gradients(p for p in self.parameters if not is_piece(p))  # those of pieces are sums already
        norm = float(clip_gradients(self.parameters, self.limit))
        if math.isfinite(norm):
            self.optimizer.step()
        return norm

    def gather(self) -> None:
        """Let the leading process have all moments if processes share them; all call this after an update.

        Any later moment may be the one at which the run is saved, by that process alone.
        """
        if self.shares_moments:
            whole = self._whole(keep=self.ranks.leads)
            self._kept = whole if self.ranks.leads else {}

    def moments(self) -> Moments:
        """What :meth:`load` takes; as after the last update, and the leading process's, where processes share them."""
        return self._kept if self.shares_moments else self.optimizer.state_dict()["state"]

    def load(self, moments: Mapping[Any, Any]) -> None:
        """Go on with what :meth:`moments` returned, and with the weights that the policy has now."""
        whole = {int(index): values for index, values in moments.items()}
        if self.shares_moments:
            self._kept = whole
        self._take(whole)

    def _whole(self, *, keep: bool) -> Moments:
        moments: Moments = gathered(self.optimizer.state_dict()["state"], keep=keep)
        return moments

    def _take(self, whole: Moments) -> None:
        groups = self.optimizer.state_dict()["param_groups"]
        own = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        cut = {index: cut_like(values, own[index]) for index, values in whole.items()}
        self.optimizer.load_state_dict({"state": cut, "param_groups": groups})


class ZeroAdam(Adam):
    """Adam of which each process keeps a part (ZeRO-1), and of the gradients too (ZeRO-2); DeepSpeed's work.

    Weights stay whole. DeepSpeed is given what is trained and nothing else, so frozen weights keep their type.

    Args:
        policy: whose parameters are trained.
        ranks: the processes that train together, and what DeepSpeed is to share out among them.
        limit: the norm of the gradient is clipped to this.
        **options: as :class:`torch.optim.Adam` takes them.

    Raises:
        ConfigError: if something is trained in less than float32: DeepSpeed would train a copy of it in float32,
            which checkpoints do not hold.
    """

    def __init__(self, policy: VLMPolicy, ranks: Ranks, *, limit: float, **options: Any) -> None:
        super().__init__(policy, ranks, limit=limit, **options)
        types = sorted({str(parameter.dtype) for parameter in self.parameters})
        if types != ["torch.float32"]:
            raise ConfigError(
                f"With DeepSpeed only float32 is trained, got {' and '.join(types)}. Set policy.dtype to float32, or "
                "policy.lora, whose adapter is float32; or launch with --use_fsdp instead of --use_deepspeed."
            )
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        if policy.device.type == "cpu":  # it would compile an operation for a minute, to send what gloo sends as well
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "managed_gradient_accumulation": False,  # a minibatch may take any number of passes
            "gradient_clipping": limit,
            "zero_optimization": dict(ranks.zero or {}),
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        trained = torch.nn.ParameterList(self.parameters)
        self._engine: Any = deepspeed.initialize(model=trained, optimizer=self.optimizer, config=config)[0]
        self._added = False
        """True if there is a gradient that no step was made of."""
        self._add(0.0)
        self.step()  # moves nothing, but after it there are moments that can be set
        self._take({})

    @property
    def in_step(self) -> bool:
        """True: gradients are shared out during the backward pass."""
        return True

    @property
    def shares_moments(self) -> bool:
        """True: each process has those of its part."""
        return True

    def clear(self) -> None:
        """Drop the gradient that has been added up, if there is one; in step."""
        if self._added:
            self._add(math.nan)  # DeepSpeed drops a gradient that is not finite, and has no other way to
            self.step()

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a loss; of what the processes add DeepSpeed takes the mean, so this is not divided."""
        self._added = True
        self._engine.backward(self.ranks.size * loss, scale_wrt_gas=False)

    def step(self) -> float:
        """Clip the gradient and make a step; as :meth:`Adam.step`."""
        self._engine.step()
        self._added = False
        return float(self._engine.get_global_grad_norm())

    def _add(self, weight: float) -> None:
        """Add a gradient that has this value everywhere."""
        self.backward(weight * torch.stack([parameter.sum() for parameter in self.parameters]).sum())

    @property
    def _counts(self) -> list[torch.Tensor]:
        """Where Adam counts its steps, float32 scalars; all are alike."""
        parts = [part for group in self.optimizer.param_groups for part in group["params"]]
        return [self.optimizer.state[part]["step"] for part in parts]

    def _whole(self, *, keep: bool) -> Moments:
        from deepspeed.utils import safe_get_full_optimizer_state

        whole = {}
        for index, parameter in enumerate(self.parameters):
            values = {name: safe_get_full_optimizer_state(parameter, name) for name in NAMES}
            if keep and values["exp_avg_sq"].any():  # torch has no moments of what never had a gradient
                values["step"] = self._counts[0].clone()
                whole[index] = {name: value.cpu() for name, value in values.items()}
        return whole

    def _take(self, whole: Moments) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        for count in self._counts:
            count.fill_(max((float(values["step"]) for values in whole.values()), default=0.0))
        for index, parameter in enumerate(self.parameters):
            safe_set_full_fp32_param(parameter, parameter.data)  # DeepSpeed has a copy of its part of the weights
            for name in NAMES:
                value = whole[index][name] if index in whole else torch.zeros_like(parameter)
                safe_set_full_optimizer_state(parameter, value.to(parameter.device), name)
