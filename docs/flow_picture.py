"""Draw one update of GTR-Turbo: ``python docs/flow_picture.py`` writes ``docs/images/flow.png``."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

IMAGE = Path(__file__).parent / "images" / "flow.png"
ENV, AGENT, TEACHER, MATHS = "#e8f1fd", "#eaf7ea", "#fdf0e0", "#f1f1f4"
INK = "#23262d"

# Name: (centre x, centre y, width, height, colour, title, what stands below it)
BOXES = {
    "env": (1.35, 4.5, 2.3, 1.0, ENV, "Environment", "picture, text, legal actions"),
    "prompt": (4.55, 4.5, 2.3, 1.0, AGENT, "Prompt", "of this step, kept with it"),
    "student": (7.75, 4.5, 2.3, 1.0, AGENT, "Student", "writes thought and action"),
    "step": (10.95, 4.5, 2.3, 1.0, AGENT, "Step", "tokens, log-probs, reward"),
    "teacher": (10.95, 2.6, 2.3, 1.0, TEACHER, "Teacher", "scores the thought's tokens"),
    "rewards": (7.75, 2.6, 2.3, 1.0, MATHS, "Rewards", r"task + format $-\,\beta\cdot$KL"),
    "ppo": (4.55, 2.6, 2.3, 1.0, MATHS, "PPO", r"advantages, epochs $\times$ minibatches"),
    "store": (4.55, 0.7, 2.3, 1.0, TEACHER, "Checkpoints", "$W_1 … W_k$, as running sums"),
    "merge": (10.95, 0.7, 2.3, 1.0, TEACHER, "TIES merge", "trim, elect signs, average"),
}
# From, to, label, side of the label (its offset), bend
ARROWS = [
    ("env", "prompt", "observation", (0, 0.16), 0.0),
    ("prompt", "student", "", (0, 0), 0.0),
    ("student", "step", "answer", (0, 0.16), 0.0),
    ("step", "teacher", "same prompt,\nsame picture,\nsame tokens", (0.12, 0), 0.0),
    ("teacher", "rewards", "log-probs", (0, 0.16), 0.0),
    ("rewards", "ppo", "", (0, 0), 0.0),
    ("ppo", "store", "new weights $W_k$", (0.12, 0), 0.0),
    ("store", "merge", "task vectors $W_i - W_0$", (0, 0.16), 0.0),
    ("merge", "teacher", "next update's\nteacher", (0.12, 0), 0.0),
]


def edge(name: str, towards: str) -> tuple[float, float]:
    """The middle of the side of a box that looks at another box."""
    x, y, width, height, *_ = BOXES[name]
    other_x, other_y, *_ = BOXES[towards]
    if abs(other_y - y) > 0.1:
        return x, y + (height if other_y > y else -height) / 2
    return x + (width if other_x > x else -width) / 2, y


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], bend: float = 0.0) -> None:
    """An arrow between two points."""
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=13, color=INK, linewidth=1.2, shrinkA=2, shrinkB=2,
            connectionstyle=f"arc3,rad={bend}",
        )
    )  # fmt: skip


def draw() -> None:
    """Draw and save the picture."""
    figure, axes = plt.subplots(figsize=(12.4, 6.1))
    axes.set(xlim=(0.1, 12.5), ylim=(0.1, 5.8))
    axes.axis("off")
    for x, y, width, height, colour, title, below in BOXES.values():
        corner = (x - width / 2, y - height / 2)
        style = "round,pad=0,rounding_size=0.12"
        axes.add_patch(
            FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=colour, edgecolor=INK, linewidth=1)
        )
        axes.text(x, y + 0.16, title, ha="center", va="center", fontsize=12, fontweight="bold", color=INK)
        axes.text(x, y - 0.2, below, ha="center", va="center", fontsize=8.6, color=INK)
    for start, end, label, (dx, dy), bend in ARROWS:
        a, b = edge(start, end), edge(end, start)
        arrow(axes, a, b, bend)
        side = "left" if dx else "center"
        axes.text((a[0] + b[0]) / 2 + dx, (a[1] + b[1]) / 2 + dy, label, ha=side, va="center", fontsize=8.4, color=INK)
    # The action goes back to the environment; the new weights are the next student.
    arrow(axes, (7.75, 5.0), (1.35, 5.0), 0.13)
    axes.text(4.55, 5.5, "the action, as text; a reward comes back", ha="center", fontsize=8.4, color=INK)
    arrow(axes, (4.95, 3.1), (7.35, 4.0), 0.0)
    axes.text(5.72, 3.62, "next update's student", ha="right", fontsize=8.4, color=INK)
    figure.tight_layout(pad=0.3)
    figure.savefig(IMAGE, dpi=120)


if __name__ == "__main__":
    draw()
