"""The critic: a small network on the hidden state of the last prompt token."""

from __future__ import annotations

import torch
from torch import nn


class ValueHead(nn.Module):
    """Linear-ReLU-Linear-ReLU-Linear in fp32, whatever the model's type (arXiv 2405.10292).

    Args:
        hidden_size: width of the model's last hidden state.
        widths: widths of the two hidden layers.
        stop_gradient: True cuts the gradient into the model.
        seed: seed of the initial weights; the global generator is restored afterwards.
    """

    def __init__(
        self, hidden_size: int, widths: tuple[int, int] = (1024, 512), *, stop_gradient: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            last = nn.Linear(widths[1], 1)
            self.net = nn.Sequential(
                nn.Linear(hidden_size, widths[0]), nn.ReLU(), nn.Linear(widths[0], widths[1]), nn.ReLU(), last
            )
        # Start at 0 for every state: an unfitted critic must not invent advantages.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.widths = widths
        self.stop_gradient = stop_gradient

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Predict the value of states from hidden states [B, H]; returns fp32 [B]."""
        hidden = hidden.float()
        values: torch.Tensor = self.net(hidden.detach() if self.stop_gradient else hidden)
        return values.squeeze(-1)
