"""The viewer of the report in a real browser: driven by mouse and keyboard, and read back from the page."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded_run import HOSTILE, finished_run
from test_viewer import forget_new_fields

from gtr_agents.report import build_report

DRIVER = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "chromium.py"))
NAMES, BROWSER = DRIVER["NAMES"], DRIVER["find_chromium"]()

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)} is on the PATH")

MINUS = "\u2212"
CONTRAST = """
(() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const parts = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return context.getImageData(0, 0, 1, 1).data;
  };
  const luminance = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const share = rgb[i] / 255;
    return sum + weight * (share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4);
  }, 0);
  const ground = (node) => {
    const colour = getComputedStyle(node).backgroundColor;
    return node.parentElement && parts(colour)[3] === 0 ? ground(node.parentElement) : colour;
  };
  const found = [];
  for (const node of document.querySelectorAll("#viewer *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest(":disabled, noscript, script")) continue;
    const [a, b] = [getComputedStyle(node).color, ground(node)].map((colour) => luminance(parts(colour)));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, `${node.className} ${node.textContent.slice(0, 30)}`]);
  }
  return found.sort((a, b) => a[0] - b[0]);
})()
"""
"""Ratio of text to its ground after WCAG 2.2 with the text it is of, worst first; disabled buttons are exempt there."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with DRIVER["Chromium"](BROWSER) as page:
        yield page


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run as it is recorded today, and of one from before there were the newer fields."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("new", "old")}
    for name, folder in folders.items():
        run = finished_run(folder)
        if name == "old":
            forget_new_fields(run)
    return {name: build_report(folder) for name, folder in folders.items()}


@pytest.fixture
def page(browser: Any, reports: dict[str, Path]) -> Iterator[Any]:
    browser.prefer("light")
    browser.resize((1200, 900))
    browser.open(reports["new"])
    yield browser
    assert browser.errors == []


def classes(page: Any, selector: str) -> list[str]:
    found: list[str] = page.run(f"[...document.querySelectorAll({selector!r})].map((node) => node.className)")
    return found


def chosen(page: Any) -> str:
    return str(page.run("document.querySelector('#map [aria-pressed=true]').dataset.id"))


def test_the_page_opens_with_what_training_changed(page: Any) -> None:
    assert chosen(page) == "student-0002-00"
    assert page.text("#who") == "Student, after update 2 · 1 2 3 4"
    assert page.text("#outcome").startswith("won with return 9 in 3 steps")
    assert page.text("#position") == "step 1 of 3"
    assert page.run("document.querySelector('#frame').naturalWidth") == 30


def test_one_steps_with_buttons_keys_slider_and_timeline(page: Any) -> None:
    first = page.run("document.querySelector('#frame').src")
    page.click("#next")
    assert page.text("#position") == "step 2 of 3"
    assert page.run("document.querySelector('#frame').src") != first
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert page.text("#position") == "the end"
    assert page.run("['next', 'previous'].map((id) => document.getElementById(id).disabled)") == [True, False]
    page.press("ArrowRight")
    assert page.text("#position") == "the end"
    page.run("document.getElementById('slider').focus()")
    page.press("ArrowLeft")
    assert (page.text("#position"), page.run("document.getElementById('slider').value")) == ("step 3 of 3", "2")
    page.click("#timeline button:nth-child(2)")
    assert page.text("#position") == "step 2 of 3"
    page.press("ArrowLeft")  # the focus went along, so the keys still work
    assert page.text("#position") == "step 1 of 3"


def test_a_step_tells_action_solver_audit_prompt_and_legal_actions(page: Any) -> None:
    told = " ".join(page.text(".verdict").split())
    assert told == "Action ( Solver the same Thought audit correct Environment accepts Reward 0"
    assert page.text("#prompt").split("\n") == ["System", "You play cards.", "User", "⟨picture⟩ What next?"]
    assert page.text("#legal").split() == ["(played,", "solver", "1", "="]
    page.press("ArrowRight")
    told = page.text(".verdict")
    assert "unreadable" in told
    assert "Solver would\n1" in told
    assert "right plan but wrong action" in told
    assert "refuses" in told
    assert "no JSON object" in page.text("#details")


def test_the_colours_of_the_tokens_can_be_switched_and_their_values_read(page: Any) -> None:
    # Sampled with log-probs -0.5, -2 and minus infinity; KL 0, 0.3 and 2; student - teacher 0, -3 and 0.
    assert classes(page, "#tokens span") == ["o1", "o3", "o4 action-token"]
    page.click("[data-focus='Coloured by kl']")
    assert classes(page, "#tokens span") == ["v0", "v3", "v4 action-token"]
    assert "nats" in page.text("#scale")
    page.press("c")
    assert classes(page, "#tokens span") == ["b0", "b4", "b0 action-token"]
    page.press("c")
    assert classes(page, "#tokens span") == ["o1", "o3", "o4 action-token"]
    page.point("#tokens span:nth-child(2)")
    assert page.text("#readout").split("\n") == [
        '"<1>"',
        f"sampled with p 0.135 (log-prob {MINUS}2.000)",
        "at temperature 1: student 0.018, teacher 0.368",
        "KL(student ‖ teacher) 0.3000 nats",
    ]
    assert page.run("document.querySelector('.values').checkVisibility()") is False
    page.click("[data-focus=values]")
    page.press("ArrowRight")
    assert page.run("document.querySelector('.values').checkVisibility()") is True  # and it stays open
    assert page.text(".values tr:nth-child(3)").split() == [
        '"<1>"',
        "thought",
        f"{MINUS}2.000",
        f"{MINUS}4.000",
        f"{MINUS}1.000",
        "0.3000",
    ]


def test_a_colouring_is_kept_from_step_to_step(page: Any) -> None:
    page.click("[data-focus='Coloured by kl']")
    page.press("ArrowRight")
    assert classes(page, "#tokens span")[1] == "v3"


def test_one_travels_through_training_and_to_other_tasks(page: Any) -> None:
    page.press("ArrowRight")
    page.press("ArrowLeft", shift=True)
    assert (chosen(page), page.text("#position")) == ("start-0000-00", "step 2 of 3")  # the same step, earlier
    assert page.run("document.getElementById('earlier').disabled") is True
    page.click("#later")
    assert chosen(page) == "student-0002-00"
    page.press("ArrowDown", shift=True)
    assert (chosen(page), page.text("#outcome").split()[:2]) == ("student-0002-01", ["not", "won"])
    page.click("#map [data-id=teacher-0002-00]")
    assert (page.text("#who"), page.text("#position")) == ("Merged teacher, after update 2 · 1 2 3 4", "step 1 of 3")
    page.press("ArrowLeft", shift=True)
    assert chosen(page) == "start-0000-00"
    page.press("ArrowRight", shift=True)
    assert chosen(page) == "teacher-0002-00"  # of the player one came from


def test_the_map_can_show_won_or_lost_episodes_only(page: Any) -> None:
    ids = "[...document.querySelectorAll('#map button')].map((button) => button.dataset.id)"
    assert page.run(ids) == ["start-0000-00", "student-0002-00", "teacher-0002-00", "student-0002-01"]
    page.click("[data-focus='Show lost']")
    assert page.run(ids) == ["start-0000-00", "student-0002-01"]
    assert page.run("document.activeElement.dataset.focus") == "Show lost"
    page.click("[data-focus='Show won']")
    assert page.run(ids) == ["student-0002-00", "teacher-0002-00"]


def test_playing_goes_on_by_itself_until_it_is_paused(page: Any) -> None:
    page.run("document.getElementById('play').focus()")
    page.press("p")
    assert page.text("#play") == "Pause"
    assert (
        page.run("new Promise((done) => setTimeout(() => done(document.getElementById('position').innerText), 1100))")
        == "step 2 of 3"
    )
    page.press("p")
    assert page.text("#play") == "Play"


def test_keys_elsewhere_on_the_page_are_left_alone(page: Any) -> None:
    page.run("document.querySelector('summary h2').parentElement.focus()")
    page.press("ArrowRight")
    page.press("c")
    assert page.text("#position") == "step 1 of 3"
    assert classes(page, "#tokens span")[0] == "o1"


def test_what_a_model_wrote_is_shown_as_it_is_and_runs_nothing(page: Any) -> None:
    assert page.run("document.querySelector('.thought').textContent") == HOSTILE
    assert page.run("document.querySelectorAll('#viewer img').length") == 1
    page.run("document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"window.ran = 1\">')")
    page.run("new Promise((done) => setTimeout(done, 100))")
    assert page.run("typeof window.ran") == "undefined"  # the page's own policy: even markup could run nothing
    assert "inline event handler" in page.errors.pop()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(page: Any, colours: str) -> None:
    page.prefer(colours)
    for colouring in ("probability", "kl", "difference"):
        page.click(f"[data-focus='Coloured by {colouring}']")
        for step in range(3):
            page.click(f"#timeline button:nth-child({step + 1})")
            ratio, of = page.run(CONTRAST)[0]
            assert ratio >= 4.5, f"{ratio:.2f} of {of!r}"


def test_every_control_has_a_name(page: Any) -> None:
    page.send("Accessibility.enable")
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    controls = [n for n in nodes if n.get("role", {}).get("value") in ("button", "slider", "image", "table", "region")]
    assert len(controls) > 15
    assert [n for n in controls if not n.get("name", {}).get("value")] == []


@pytest.mark.parametrize("width", [360, 820])
def test_nothing_sticks_out_of_a_narrow_page(page: Any, width: int) -> None:
    page.resize((width, 800))
    assert page.run("document.documentElement.scrollWidth") <= width


def test_an_older_run_is_shown_without_what_it_did_not_record(page: Any, reports: dict[str, Path]) -> None:
    page.open(reports["old"])
    assert page.run("document.querySelector(\"[data-focus='Coloured by kl']\").disabled") is True
    assert "Nothing was recorded" in page.text("#details")
    page.press("ArrowRight")
    assert page.text("#position") == "step 2 of 3"
    assert page.text("#prompt").split("\n") == ["User", "⟨picture⟩ What next?"]
    assert page.run("document.getElementById('legal')") is None
