"""Which metrics of a run are drawn, in which chart, and what each of them means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from gtr_agents import charts

SUCCESS = "success_rate"
EVALUATIONS = (
    ("eval/student", "student", "student"),
    ("eval/teacher", "merged teacher", "teacher"),
    ("eval/student_greedy", "student, greedy", "greedy"),
)
"""Prefix of a metric, legend, and colour."""
OTHER = "Other metrics"
"""Heading of the charts nobody explained."""

TEACHER_LEAD = "eval/teacher_lead"
"""Success of the merged teacher minus that of the student on the same episodes."""

PERCENT = charts.Axis(percent=True)
NUMBER = charts.Axis()
LOG = charts.Axis(log=True)


@dataclass(frozen=True, slots=True)
class Figure:
    """What one small chart of the report shows."""

    metric: str
    """The metric; for ``rollout/NAME`` the evaluations ``eval/.../NAME`` are drawn as well."""
    title: str
    """The heading."""
    note: str = ""
    """What it means, and where it should go."""
    axis: charts.Axis = NUMBER
    """How values are placed and written."""
    level: float | None = None
    """A value to mark, e.g. a bound."""


FIGURES: dict[str, tuple[Figure, ...]] = {
    "Success and return": (
        Figure("rollout/success_rate_solvable", "Success, solvable hands", "Of the episodes that can be won.", PERCENT),
        Figure("rollout/return", "Return", "Undiscounted reward of an episode."),
    ),
    "Thoughts and answers": (
        Figure("rollout/cards_accuracy", "Cards read", "Thoughts that name them right; collapse starts here.", PERCENT),
        Figure("rollout/valid_rate", "Valid answers", "Answers in the requested format.", PERCENT),
        Figure("rollout/legal_rate", "Legal moves", "Actions the environment accepted.", PERCENT),
        Figure("rollout/self_bleu", "Self-BLEU", "Likeness of an episode's answers; near 1 they repeat themselves."),
        Figure("rollout/thought_tokens", "Thought length", "Tokens a thought."),
        Figure("rollout/entropy", "Entropy", "Nats a token while sampling; near 0 nothing is explored."),
    ),
    "Thought audit": (
        Figure("rollout/audit_correct", "Correct", "The plan wins and the action is its next token.", PERCENT),
        Figure("rollout/audit_misread_card", "Misread card", "The stated cards are not those on the table.", PERCENT),
        Figure("rollout/audit_wrong_formula", "Wrong formula", "The plan is none for this hand and formula.", PERCENT),
        Figure("rollout/audit_wrong_arithmetic", "Wrong arithmetic", "The plan has another value.", PERCENT),
        Figure("rollout/audit_wrong_action", "Wrong action", "The plan wins, the action is not its next.", PERCENT),
        Figure("rollout/audit_hopeless", "Hopeless", "Nothing wins any more, whatever is thought.", PERCENT),
    ),
    "Teacher": (
        Figure("guidance/kl", "KL to the teacher", "Nats; what the guidance pulls down."),
        Figure("guidance/reward", "Guidance reward", "Added to the reward of a step."),
        Figure("teacher/checkpoints", "Merged checkpoints", "How many the teacher is made of."),
        Figure("teacher/agreement", "Sign agreement", "Of the checkpoints' changes to a weight.", PERCENT),
        Figure(
            "teacher/conflict_mass", "Conflict mass", "Outvoted mass of the changes; 0 is none, half complete.", PERCENT
        ),
        Figure("teacher/norm_ratio", "Norm ratio", "Length of the merge over that of the plain mean."),
        Figure("teacher/drift", "Teacher drift", "Cosine of the last two teachers; exactly 1 is a frozen one."),
    ),
    "Optimisation": (
        Figure("train/ratio_error_first_epoch", "Ratio error, first epoch", "Above the line scoring errs.", LOG, 1e-4),
        Figure("train/approx_kl", "Approximate KL", "Of the policy before and after an update."),
        Figure("train/clip_fraction", "Clipped share", "Ratios outside the clip range.", PERCENT),
        Figure("train/grad_norm", "Gradient norm", "Before clipping."),
        Figure("train/explained_variance", "Explained variance", "Of the returns by the critic; 1 is perfect."),
        Figure("rollout/steps_per_second", "Speed", "Environment steps a second while collecting."),
    ),
}
"""The charts that are explained, by section; other metrics are drawn without a word, below them."""


TEACHER_LINES = (
    ("teacher/agreement", "sign agreement of the checkpoints", "teacher"),
    ("teacher/conflict_mass", "conflict mass (50% is complete)", "conflict"),
    ("teacher/drift", "cosine of the last two teachers", "greedy"),
    (TEACHER_LEAD, "success of the teacher minus the student's", "student"),
    ("guidance/kl", "KL to the teacher, as a share of its highest", "rollout"),
)
"""Metric, legend and colour of the picture that tells how the teacher is."""


def split_metrics(lines: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Separate the lines of reinforcement learning from those of the supervised start.

    Args:
        lines: As in ``metrics.jsonl``.

    Returns:
        One mapping an update, ascending (lines of the same update are one; the later value wins), and the supervised
        lines in order.
    """
    by_update: dict[int, dict[str, Any]] = {}
    supervised = []
    for line in lines:
        if "update" in line:
            by_update.setdefault(int(line["update"]), {}).update(line)
        else:
            supervised.append(dict(line))
    return [by_update[update] for update in sorted(by_update)], supervised


def sections(
    training: Sequence[Mapping[str, Any]], supervised: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, list[tuple[Figure, Markup]]]]:
    """Draw the small charts.

    Args:
        training: The lines of the updates.
        supervised: The lines of the supervised start.

    Yields:
        Heading, and figure and chart of each metric that was recorded. Sections without any are left out.
    """
    for heading, figures in FIGURES.items():
        if drawn := _charts(training, figures):
            yield heading, drawn
    keys = dict.fromkeys(key for line in supervised for key in line if not key.endswith(("/step", "/seconds")))
    if imitation := [(Figure(key, key), chart) for key in keys if (chart := _supervised(supervised, key))]:
        yield "Supervised start", imitation
    known = {figure.metric for figures in FIGURES.values() for figure in figures} | {f"rollout/{SUCCESS}"}
    numbers = {key for line in training for key, value in line.items() if isinstance(value, float) and "/" in key}
    others = sorted(key for key in numbers - known if not key.startswith("eval/"))
    if drawn := _charts(training, [Figure(key, key) for key in others]):
        yield OTHER, drawn


def position(training: Sequence[Mapping[str, Any]]) -> str:
    """Choose the metric of the horizontal axis.

    Args:
        training: The lines of the updates.

    Returns:
        ``env_steps`` if every line has it, ``update`` otherwise.
    """
    return "env_steps" if all("env_steps" in line for line in training) else "update"


def points(lines: Sequence[Mapping[str, Any]], key: str, where: str) -> tuple[list[float], list[float]]:
    """Read a metric where it is a number.

    Args:
        lines: Lines of metrics.
        key: The metric.
        where: The metric of the horizontal axis.

    Returns:
        Positions and values.
    """
    pairs = [(float(line[where]), float(line[key])) for line in lines if isinstance(line.get(key), (int, float))]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _series(training: Sequence[Mapping[str, Any]], key: str, label: str, role: str) -> charts.Series | None:
    where = position(training)
    xs, ys = points(training, key, where)
    if not xs:
        return None
    ends = [points(training, f"{key.removesuffix(SUCCESS)}success_{end}", where)[1] for end in ("low", "high")]
    has_intervals = key.endswith(f"/{SUCCESS}") and len(ends[0]) == len(ends[1]) == len(xs)
    intervals = tuple(zip(*ends, strict=True)) if has_intervals else ()
    return charts.Series(label, role, tuple(xs), tuple(ys), intervals, marked=key.startswith("eval/"))


def all_series(training: Sequence[Mapping[str, Any]], metric: str) -> list[charts.Series]:
    """Read a metric of training and, if it is one of the rollouts, the same metric of the evaluations.

    Args:
        training: The lines of the updates.
        metric: Its name, ``PREFIX/NAME``.

    Returns:
        The series that have a value.
    """
    prefix, name = metric.split("/", 1)
    wanted = [(metric, "training (as dealt there)" if prefix == "rollout" else name.replace("_", " "), "rollout")]
    wanted += [(f"{start}/{name}", label, role) for start, label, role in EVALUATIONS if prefix == "rollout"]
    series = [_series(training, *names) for names in wanted]
    return [line for line in series if line is not None]


def success_before(training: Sequence[Mapping[str, Any]]) -> float | None:
    """Read the success rate of the start model.

    Args:
        training: The lines of the updates.

    Returns:
        The rate evaluated at update 0, None if there is none.
    """
    start = training[0] if training and training[0]["update"] == 0 else {}
    value = start.get(f"eval/student/{SUCCESS}")
    return None if value is None else float(value)


def success_chart(training: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Markup:
    """Draw success over training, with the level of the start model.

    Args:
        training: The lines of the updates.
        size: Width and height in pixels.

    Returns:
        The chart; empty if no success rate was recorded.
    """
    series = all_series(training, f"rollout/{SUCCESS}")
    if not series:
        return Markup("")
    return _draw(training, series, PERCENT, "Success rate over training", size, success_before(training))


def teacher_series(training: Sequence[Mapping[str, Any]]) -> list[charts.Series]:
    """Read what tells how the merged teacher is.

    Args:
        training: The lines of the updates.

    Returns:
        Shares and differences of shares, all in [-1, 1]; empty if the run merged nothing.
    """
    where = position(training)
    if not any("teacher/agreement" in line for line in training):
        return []
    series = []
    for metric, label, role in TEACHER_LINES:
        # Before there are two teachers to compare, their cosine is recorded as 0.
        told = [line for line in training if metric != "teacher/drift" or line.get(metric)]
        xs, ys = points(told, metric, where)
        highest = max(ys, default=0.0) if metric == "guidance/kl" else 1.0
        if xs and highest > 0:
            values = tuple(y / highest for y in ys)
            series.append(charts.Series(label, role, tuple(xs), values, marked=metric == TEACHER_LEAD))
    return series


def teacher_chart(training: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Markup:
    """Draw how the merged teacher is, in one picture.

    Args:
        training: The lines of the updates.
        size: Width and height in pixels.

    Returns:
        The chart; empty if the run merged nothing.
    """
    series = teacher_series(training)
    return _draw(training, series, PERCENT, "The merged teacher", size, 0.0) if series else Markup("")


def _charts(training: Sequence[Mapping[str, Any]], figures: Iterable[Figure]) -> list[tuple[Figure, Markup]]:
    return [(figure, chart) for figure in figures if (chart := _chart(training, figure)) is not None]


def _chart(training: Sequence[Mapping[str, Any]], figure: Figure) -> Markup | None:
    series = [line for line in all_series(training, figure.metric) if line.role != "greedy"]
    if not any(line.role == "rollout" for line in series):
        return None
    return _draw(training, series, figure.axis, figure.title, (360, 180), figure.level)


def _draw(
    training: Sequence[Mapping[str, Any]],
    series: Sequence[charts.Series],
    axis: charts.Axis,
    label: str,
    size: tuple[int, int],
    level: float | None,
) -> Markup:
    where = position(training)
    updates = {float(line[where]): line["update"] for line in training}
    steps = " · {:,.0f} steps" if where == "env_steps" else ""

    def head(x: float) -> str:
        return f"update {updates[x]}{steps.format(x)}"

    return charts.line_chart(series, axis, label=label, size=size, level=level, head=head)


def _supervised(lines: Sequence[Mapping[str, Any]], key: str) -> Markup | None:
    kind, _, name = key.partition("/")
    numbered = [{f"{kind}/step": i, **line} for i, line in enumerate(lines)]
    xs, ys = points(numbered, key, f"{kind}/step")
    if not xs:
        return None
    series = charts.Series(name.replace("_", " "), "rollout", tuple(xs), tuple(ys))
    return charts.line_chart([series], NUMBER, label=key, size=(360, 180), head=lambda x: f"step {x:,.0f}")
