"""The report tells the truth about a run, holds everything it shows, and lets no model text become markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from recorded_run import HOSTILE, evaluation, finished_run

from gtr_agents.charts import Row
from gtr_agents.curves import split_metrics, teacher_series
from gtr_agents.recorder import RunFolder, RunFolderError
from gtr_agents.report import (
    build_report,
    comparison,
    flatten,
    headline,
    learning_curve_png,
    missing,
    tiles,
)


class Page(HTMLParser):
    """Collects tags with their attributes, the visible text, and the embedded episodes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.raw = path.read_text(encoding="utf-8")
        self.feed(self.raw)
        found = re.search(r'id="episodes-data">(.*?)</script>', self.raw, re.DOTALL)
        viewer: dict[str, Any] = json.loads(found[1]) if found else {"episodes": [], "shared": []}
        self.episodes: list[dict[str, Any]] = viewer["episodes"]
        self.shared: list[Any] = viewer["shared"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.text += f"{data.strip()} "

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def write_metrics(run: RunFolder, *lines: dict[str, Any]) -> None:
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_report_of_a_finished_run_shows_result_curves_episodes_and_settings(tmp_path: Path) -> None:
    finished_run(tmp_path)
    path = build_report(tmp_path)
    page = Page(path)
    assert path == tmp_path / "report.html"
    assert "Success rose from 20.0% to 40.0% (+20.0 points) on 200 fixed test episodes" in page.text
    assert "Ratio error, first epoch" in page.text
    assert "sft/loss" in page.text
    assert "config.env.id Points24-v0" in page.text
    assert "wall time 1:01" in page.text
    assert 'class="note"' not in page.raw.split("<main>")[0]
    assert [e["id"] for e in page.episodes] == [
        "start-0000-00",
        "student-0002-00",
        "student-0002-01",
        "teacher-0002-00",
    ]
    assert page.shared[page.episodes[0]["steps"][0]["frame"]].startswith("data:image/png;base64,")


def test_the_report_asks_nothing_of_the_outside(tmp_path: Path) -> None:
    finished_run(tmp_path)
    page = Page(build_report(tmp_path))
    addresses = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href", "action")
    ]
    assert addresses == ["data:,"]
    assert re.findall(r"url\(|@import|fetch\(|XMLHttpRequest|WebSocket", page.raw) == []
    assert page.count("link") == 1
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "'unsafe-inline'" not in policy.split("script-src")[1]


def test_what_a_model_wrote_never_becomes_markup(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    run.write_config({"preset": HOSTILE})
    run.write_summary({**run.summary(), "preset": HOSTILE})
    page = Page(build_report(tmp_path))
    assert page.count("script") == 2
    assert page.count("img") == 1  # the frame of the viewer
    assert page.episodes[1]["steps"][0]["thought"] == HOSTILE
    assert "{{ 7*7 }}" in page.text


def test_an_interrupted_run_takes_its_rates_from_the_evaluations(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_metrics(
        run,
        {"update": 0} | evaluation(0.2, 0.15, 0.26),
        {"update": 1, "rollout/success_rate": 0.2} | evaluation(0.25, 0.2, 0.31),
    )
    page = Page(build_report(tmp_path))
    assert "Success went from 20.0% to 25.0% (+5.0 points); the 95% intervals overlap" in page.text
    assert "There is no summary.json" in page.text
    assert "There is no config.json" in page.text
    assert "No episodes were recorded" in page.text


def test_a_purely_supervised_run_gets_a_report_that_says_so(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    recall = [{"recall/step": step, "recall/accuracy": step / 100} for step in (25, 75)]
    write_metrics(run, *recall, {"sft/step": 25, "sft/loss": 1.5}, {"sft/step": 50, "sft/loss": 0.5})
    page = Page(build_report(tmp_path))
    assert "No success rate has been measured" in page.text
    assert "No update of reinforcement learning was recorded" in page.text
    assert "Supervised start" in page.text
    assert "recall/accuracy" in page.text
    assert "recall/step" not in page.text
    assert "step 75" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Learning curve" not in page.text


def test_a_run_killed_before_its_first_line_gets_a_report(tmp_path: Path) -> None:
    RunFolder(tmp_path).write_config({"preset": "tiny"})
    assert "tiny" in Page(build_report(tmp_path)).text


def test_a_missing_frame_is_left_out_of_the_page(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    (tmp_path / "episodes" / "frames" / "start-0000-00_01.png").unlink()
    frames = [step["frame"] for step in Page(build_report(run.path)).episodes[0]["steps"]]
    assert [frame is None for frame in frames] == [False, True, False]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run folder"):
        build_report(tmp_path)


def test_lines_of_one_update_are_joined_and_the_later_value_wins() -> None:
    training, supervised = split_metrics(
        [{"sft/loss": 1.0}, {"update": 2, "a": 1, "c": 5}, {"update": 1}, {"update": 2, "a": 3, "b": 4}]
    )
    assert training == [{"update": 1}, {"update": 2, "a": 3, "b": 4, "c": 5}]
    assert supervised == [{"sft/loss": 1.0}]


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (
            Row("Student", "student", 0.4, (0.3, 0.5)),
            "rose from 20.0% to 40.0% (+20.0 points) on 50 fixed test episodes; the",
        ),
        (Row("Student", "student", 0.1, (0.05, 0.14)), "fell from 20.0% to 10.0% (-10.0 points)"),
        (Row("Student", "student", 0.3, (0.25, 0.4)), "may be chance"),
        (Row("Student", "student", 0.3), "went from 20.0% to 30.0% (+10.0 points) on 50 fixed test episodes."),
    ],
)
def test_the_headline_claims_a_change_only_if_the_intervals_part(after: Row, told: str) -> None:
    before = Row("Start", "start", 0.2, (0.15, 0.25))
    assert told in headline([before, after], {"episodes": 50, "evaluation_split": "test"})


def test_one_rate_alone_is_no_change() -> None:
    assert headline([Row("Start", "start", 0.2)], {}) == "Success is 20.0%."


def test_the_start_alone_is_not_shown_as_the_student_too() -> None:
    rows = comparison({}, [{"update": 0} | evaluation(0.2, 0.15, 0.26) | evaluation(0.2, 0.15, 0.26, "teacher")])
    assert [(row.label, row.value, row.interval) for row in rows] == [("Start", 0.2, (0.15, 0.26))]


def test_the_summary_goes_before_the_evaluations_in_between() -> None:
    summary = {
        "success_rate_before": 0.3,
        "success_rate_before_interval": [0.2, 0.4],
        "success_rate_before_greedy": 0.5,
    }
    (row,) = comparison(summary, [{"update": 0} | evaluation(0.2, 0.1, 0.3)])
    assert row == Row("Start", "start", 0.3, (0.2, 0.4), 0.5)


def test_tiles_fall_back_on_the_last_update() -> None:
    last = {"update": 12, "env_steps": 20480, "wall_seconds": 3675.0}
    assert tiles({}, [last]) == [("updates", "12"), ("environment steps", "20,480"), ("wall time", "1:01:15")]
    assert tiles({"updates": 13, "seed": 0}, [last])[0] == ("updates", "13")


def test_an_interruption_is_said() -> None:
    notes = missing({"interrupted": True}, [{"update": 1}], {"a": 1}, [1])
    assert notes == ["The run was interrupted; the numbers are those of its last complete update."]


def test_a_configuration_becomes_dotted_rows() -> None:
    assert list(flatten({"a": {"b": 1, "c": {}}, "d": None})) == [("a.b", "1"), ("a.c", "{}"), ("d", "")]


def test_the_learning_curve_is_a_picture_with_the_colours_of_its_lines(tmp_path: Path) -> None:
    finished_run(tmp_path)
    path = learning_curve_png(tmp_path, tmp_path / "curve.png")
    with Image.open(path) as picture:
        assert picture.size == (1280, 720)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert {(37, 99, 235), (217, 119, 6)} <= colours


def test_one_picture_tells_how_the_teacher_is(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    assert "How the teacher is" not in Page(build_report(tmp_path)).text
    lines = [
        {"update": 1, "teacher/agreement": 1.0, "teacher/conflict_mass": 0.0, "teacher/drift": 0.0, "guidance/kl": 0.0},
        {"update": 2, "teacher/agreement": 0.9, "teacher/conflict_mass": 0.1, "teacher/drift": 0.8, "guidance/kl": 0.2},
        {"update": 3, "teacher/agreement": 0.8, "teacher/conflict_mass": 0.2, "teacher/drift": 0.9, "guidance/kl": 0.1}
        | {"eval/teacher_lead": 0.05},
    ]
    with (run.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(line)}\n" for line in lines)
    page = Page(build_report(tmp_path))
    assert "How the teacher is" in page.text
    series = {line.role: line.ys for line in teacher_series(split_metrics(run.metrics())[0])}
    assert series == {
        "teacher": (1.0, 0.9, 0.8),
        "conflict": (0.0, 0.1, 0.2),
        "greedy": (0.8, 0.9),  # one teacher alone has no cosine
        "student": (0.05,),
        "rollout": (0.0, 1.0, 0.5),
    }
    assert {"teacher", "conflict", "student"} <= {line.split()[0] for line in re.findall(r'class="([^"]+)"', page.raw)}


def test_a_run_without_any_rate_has_no_learning_curve(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_metrics(run, {"sft/step": 1, "sft/loss": 1.0})
    with pytest.raises(RunFolderError, match="no success rate to draw"):
        learning_curve_png(tmp_path, tmp_path / "curve.png")
