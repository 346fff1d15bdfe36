"""A corpus of answers, action spans, and the promise that no text raises or invents an action."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtr_agents.parsing import MAX_CHARACTERS, find_action_span, parse_answer
from gtr_agents.types import Answer

KEYS = ("thoughts", "action")


def parse(text: str) -> Answer:
    return parse_answer(text, KEYS)


# --- answers that are well formed

WELL_FORMED = {
    "compact": ('{"thoughts":"T then 4","action":"+"}', "+"),
    "spaced": ('{ "thoughts" : "x" , "action" : "+" }', "+"),
    "action first": ('{"action": "10", "thoughts": "x"}', "10"),
    "whole number": ('{"thoughts":"x","action":10}', "10"),
    "trimmed and lower-cased": ('{"thoughts":"x","action":"  Go To Drawer 1 "}', "go to drawer 1"),
    "fenced": ('```json\n{"thoughts":"x","action":"+"}\n```', "+"),
    "fenced without a language": ('```\n{"thoughts":"x","action":"+"}```\n', "+"),
    "fence not closed": ('```json\n{"thoughts":"x","action":"+"}', "+"),
    "white space around": ('\n  {"thoughts":"x","action":"+"}\n', "+"),
    "more keys": ('{"cards":[2,3],"thoughts":"x","formula":"2","action":"*"}', "*"),
    "escaped action": ('{"thoughts":"x","action":"\\u002b"}', "+"),
    "the same action twice": ('{"thoughts":"x","action":"+","action":"+"}', "+"),
    "action quoted in the thoughts": ('{"thoughts":"not \\"action\\": \\"-\\" but","action":"+"}', "+"),
    "no thoughts but valid": ('{"thoughts":"","action":"="}', "="),
}


@pytest.mark.parametrize(("text", "action"), WELL_FORMED.values(), ids=WELL_FORMED.keys())
def test_a_well_formed_answer_gives_its_action(text: str, action: str) -> None:
    answer = parse(text)
    assert (answer.action, answer.error, answer.valid_format) == (action, None, True)


# --- answers that are readable but not well formed

READABLE = {
    "a required key is missing": ('{"action":"+"}', "+"),
    "prose before": ('Sure! {"thoughts":"x","action":"+"}', "+"),
    "closing brace missing": ('{"thoughts":"x","action":"+"', "+"),
    "comma at the end": ('{"thoughts":"x","action":"+",}', "+"),
    "single quotes": ("{'thoughts':'x','action':'+'}", "+"),
    "keys without quotes": ('{thoughts:"x",action:"+"}', "+"),
    "number in broken JSON": ('{"thoughts":"x","action":10,}', "10"),
    "quotes in the thoughts not escaped": ('{"thoughts":"the "big" one","action":"+"}', "+"),
    "NaN is not JSON": ('{"thoughts":NaN,"action":"+"}', "+"),
    "huge number beside it": ('{"thoughts":' + "1" * 5000 + ',"action":"+"}', "+"),
    "line break in a string": ('{"thoughts":"a\nb","action":"+"}', "+"),
}


@pytest.mark.parametrize(("text", "action"), READABLE.values(), ids=READABLE.keys())
def test_a_slightly_broken_answer_is_readable_but_not_valid(text: str, action: str) -> None:
    answer = parse(text)
    assert (answer.action, answer.error, answer.valid_format) == (action, None, False)


# --- answers that cannot be read

UNREADABLE = {
    "empty": ("", "no JSON object"),
    "prose": ("I play +", "no JSON object"),
    "null": ("null", "no JSON object"),
    "list of brackets": ("[" * 5000, "no JSON object"),
    "too long": ('{"thoughts":"' + "x" * MAX_CHARACTERS + '","action":"+"}', "more than 20000"),
    "deep objects": ('{"a":' * 3000, "one JSON object"),
    "deep lists": ('{"a":' + "[" * 15_000, "one JSON object"),
    "braces only": ("{" * 15_000, "one JSON object"),
    "list around": ('[{"thoughts":"x","action":"+"}]', "one JSON object, found a list"),
    "two objects": ('{"thoughts":"x","action":"+"}{"thoughts":"y"}', "one JSON object, found a list"),
    "empty object": ("{}", "'action' is missing"),
    "no action": ('{"thoughts":"x"}', "'action' is missing"),
    "action of an inner object only": ('{"thoughts":{"action":"+"}}', "'action' is missing"),
    "two actions": ('{"thoughts":"x","action":"+","action":"-"}', "2 times with different values"),
    "two actions in broken JSON": ('{"thoughts":"x","action":"+","action":"-"', "exactly once"),
    "two objects with actions": ('{"action":"+"} {"action":"-"}', "exactly once"),
    "text cut inside the action": ('{"thoughts":"x","action":"1', "exactly once"),
    "text cut inside a number": ('{"thoughts":"x","action":1', "exactly once"),
    "text cut before the action": ('{"thoughts":"x","action":', "'action'"),
    "text cut inside the thoughts": ('{"thoughts":"I want to', "'action' is missing"),
    "text cut inside the key": ('{"thoughts":"x","act', "'action' is missing"),
    "empty action": ('{"thoughts":"x","action":"  "}', "'action' is empty"),
    "true": ('{"thoughts":"x","action":true}', "not bool"),
    "null as action": ('{"thoughts":"x","action":null}', "not NoneType"),
    "list as action": ('{"thoughts":"x","action":["+"]}', "not list"),
    "object as action": ('{"thoughts":"x","action":{"action":"+"}}', "not dict"),
    "float as action": ('{"thoughts":"x","action":1.5}', "not float"),
    "infinite action": ('{"thoughts":"x","action":1e999}', "not float"),
}


@pytest.mark.parametrize(("text", "reason"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_unreadable_answer_gives_a_reason_and_no_action(text: str, reason: str) -> None:
    answer = parse(text)
    assert answer.action is None
    assert answer.error is not None
    assert reason in answer.error


def test_an_action_nobody_can_play_does_not_make_the_format_invalid() -> None:
    assert parse('{"thoughts":"x","action":"fly"}').valid_format
    assert parse('{"thoughts":"x","action":null}').valid_format


def test_fields_and_thought_are_kept_beside_an_error() -> None:
    answer = parse('{"thoughts":"2 and 3","cards":[2,3]}')
    assert answer.thought == "2 and 3"
    assert answer.fields == {"thoughts": "2 and 3", "cards": [2, 3]}


def test_a_thought_that_is_not_text_becomes_text() -> None:
    assert parse('{"thoughts":[1, "a"],"action":"+"}').thought == "[1, 'a']"


def test_the_names_of_the_keys_are_the_callers() -> None:
    answer = parse_answer('{"t":"x","a":"+"}', ("t", "a"), thought_key="t", action_key="a")
    assert (answer.thought, answer.action, answer.valid_format) == ("x", "+", True)
    assert answer.action_span == (9, 17)


def test_every_required_key_is_required() -> None:
    text = '{"cards":[1],"thoughts":"x","action":"+"}'
    assert parse_answer(text, ("cards", "thoughts", "action")).valid_format
    assert not parse_answer(text, ("cards", "formula", "thoughts", "action")).valid_format


# --- action spans

SPANS = {
    "last key": '{"thoughts":"x",«"action":"+"}»',
    "spaced colon": '{"thoughts": "x", «"action" : "+" }»',
    "other keys follow": '{«"action":"+"»,"thoughts":"x"}',
    "number, other keys follow": '{«"action": 10» , "thoughts":"x"}',
    "object, other keys follow": '{«"action":{"a":[1],"action":"}"}»,"thoughts":"x"}',
    "fence": '```json\n{"thoughts":"x",«"action":"+"}\n```»',
    "key quoted in the thoughts": '{"thoughts":"\\"action\\": \\"-\\"",«"action":"+"}»',
    "thoughts ending on the key": '{"thoughts":"my \\"action",«"action":"+"}»',
    "value that reads like the key": '{"thoughts":"action",«"action":"action"}»',
    "value that reads like the key, then thoughts": '{«"action":"action"»,"thoughts":"x"}',
    "key in an inner object": '{"thoughts":{"action":"-"},«"action":"+"}»',
    "backslash before the key": '{"thoughts":"\\\\",«"action":"+"}»',
    "cut in the value": '{"thoughts":"x",«"action":"go to»',
    "key without quotes": "{thoughts:'x',«action:'+'}»",
    "brackets in strings": '{"thoughts":"{[",«"action":"+"}»',
}


@pytest.mark.parametrize("marked", SPANS.values(), ids=SPANS.keys())
def test_the_action_span_is_what_is_marked(marked: str) -> None:
    start, end = marked.index("«"), marked.index("»") - 1
    text = marked.replace("«", "").replace("»", "")
    assert parse(text).action_span == (start, end)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "action",
        '{"thoughts":"the action: +',
        "{}",
        '{"thoughts":"action"}',
        '{"thoughts":"x","act',
        '{"thoughts":"\\"action\\":1"}',
    ],
)
def test_without_an_action_key_there_is_no_span(text: str) -> None:
    assert find_action_span(text) is None


@given(
    st.dictionaries(st.sampled_from(["thoughts", "cards", "formula", "a"]), st.text(max_size=20)),
    st.text(max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_the_span_of_any_well_formed_answer_starts_at_the_key_and_holds_the_value(
    others: dict[str, str], action: str
) -> None:
    text = json.dumps({**others, "action": action}, ensure_ascii=False)
    answer = parse_answer(text, ())
    assert answer.valid_format
    assert answer.action_span is not None
    start, end = answer.action_span
    assert text[start:end].startswith('"action": ')
    assert json.loads("{" + text[start:end]) == {"action": action}


# --- any text

PIECES = [
    '"',
    "'",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "action",
    '"action"',
    "thoughts",
    "+",
    "10",
    "true",
    "null",
]
PIECES += [
    "NaN",
    "```",
    "json",
    "\n",
    " ",
    "\ud800",
    "\0",
    "é",
    "1e999",
    "//",
    "<|end|>",
    '"action":"+"',
    '"action":',
]
SEEDS = [text for text, _ in [*WELL_FORMED.values(), *READABLE.values(), *UNREADABLE.values()] if len(text) < 300]


def mutated(rng: np.random.Generator) -> str:
    """Draw a text: a corpus entry with some pieces inserted, deleted or cut off, or pieces only."""
    text = SEEDS[rng.integers(len(SEEDS))] if rng.random() < 0.8 else ""
    for _ in range(rng.integers(1, 8)):
        at = int(rng.integers(len(text) + 1))
        kind = rng.integers(4)
        if kind == 0:
            text = text[:at] + text[at + 1 :]
        elif kind == 1 and rng.random() < 0.3:
            text = text[:at]
        else:
            text = text[:at] + PIECES[rng.integers(len(PIECES))] + text[at:]
    return text


def test_a_failing_repair_makes_the_answer_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RecursionError

    monkeypatch.setattr("json_repair.repair_json", fail)
    assert parse('{"thoughts":"x","action":"+"').error == "expected one JSON object, found nothing readable"


def assert_sound(text: str) -> None:
    answer = parse(text)
    assert (answer.action is None) != (answer.error is None)
    if answer.action is not None:
        assert answer.action == answer.action.strip().lower() != ""
        # Escapes aside, an action that was read stands in the text.
        assert answer.action in text.lower() or "\\" in text
    if answer.action_span is not None:
        start, end = answer.action_span
        assert 0 <= start < end <= len(text)
        assert re.match(r"[\"']?action", text[start:end])


def test_twenty_thousand_mutated_answers_never_raise_and_never_invent_an_action() -> None:
    rng = np.random.default_rng(20)
    for _ in range(20_000):
        assert_sound(mutated(rng))


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_no_text_raises(text: str) -> None:
    assert_sound(text)


@pytest.mark.parametrize(
    "text",
    [
        '"' * MAX_CHARACTERS,
        '{"a' * (MAX_CHARACTERS // 3),
        '{"' + "\\" * (MAX_CHARACTERS - 2),
        "{" + "a" * (MAX_CHARACTERS - 1),
        '{"a" ' * (MAX_CHARACTERS // 5),
        "{" + " " * (MAX_CHARACTERS - 1),
        "{" + "'" * (MAX_CHARACTERS - 1),
        '{"action":' + '"action":' * 2000,
        '{"a":"b",' * 150 + '"' * 5000,
        "```" * (MAX_CHARACTERS // 3),
        "{" + "a:" * (MAX_CHARACTERS // 2 - 1),
        '{"action"' + " " * (MAX_CHARACTERS - 10),
        '{"thoughts":"' + "a\\" * (MAX_CHARACTERS // 2 - 10),
    ],
    ids=lambda text: f"{text[:12]}...",
)
def test_no_text_takes_long(text: str) -> None:
    start = time.process_time()
    parse(text)
    assert time.process_time() - start < 2.0
