"""What an answer text means: thought, action and action span, or the reason why it cannot be read.

The parser accepts any string, never raises and never guesses: an action is returned only if the text states
it once, completely. Strict JSON is tried first; slightly broken JSON is repaired and may be readable, but is
not well formed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NoReturn

from gtr_agents.types import Answer

MAX_CHARACTERS = 20_000
"""Longer texts are refused unread; a real answer has a few hundred characters."""
MAX_BRACKETS = 200
"""Repair is not tried on texts with more opening brackets than this: it takes seconds, and no answer has them."""

_FENCE = re.compile(r"\A\s*```[^\n`{]*\n?(.*?)(?:```)?\s*\Z", re.DOTALL)
_STRING = r'"[^"\\]*(?:\\(?:.|\Z)[^"\\]*)*(?:"|\Z)'
# What the span scanner stops at: JSON strings (an unfinished one reaches to the end), brackets, and the keys
# that only repair understands (bare or in single quotes).
_TOKEN = re.compile(rf"{_STRING}|[{{}}\[\]]|'\w+'(?=\s*:)|\b[A-Za-z_]\w*(?=\s*:)", re.DOTALL)
_COLON = re.compile(r"\s*:\s*")
_BARE_VALUE = re.compile(r"[^,}\]\s]*")


def parse_answer(
    text: str, required_keys: Sequence[str], *, thought_key: str = "thoughts", action_key: str = "action"
) -> Answer:
    """Read one answer.

    Args:
        text: The sampled text, any string.
        required_keys: Keys a well-formed answer has (the prompt asked for exactly these).
        thought_key: Key of the reasoning.
        action_key: Key of the action.

    Returns:
        The parsed answer; exactly one of ``action`` and ``error`` is set.
    """
    if len(text) > MAX_CHARACTERS:
        return Answer(error=f"the answer has {len(text)} characters, more than {MAX_CHARACTERS}")
    span = find_action_span(text, action_key)
    if "{" not in text:
        return Answer(error="no JSON object in the answer", action_span=span)
    body = strip_fence(text)
    strict = True
    try:
        fields = _decoder(action_key).decode(body)
    except _RepeatedKeyError as repeated:
        return Answer(error=str(repeated), action_span=span)
    except (ValueError, RecursionError):
        strict = False
        fields = _repair(body)
    if not isinstance(fields, dict):
        found = "nothing readable" if fields is None else f"a {type(fields).__name__}"
        return Answer(error=f"expected one JSON object, found {found}", action_span=span)
    thought = fields.get(thought_key, "")
    action, error = _read_action(fields, action_key)
    if action is not None and not strict and not _states_once(body, action_key, action):
        action, error = None, f"the text does not state {action_key!r} exactly once and completely"
    return Answer(
        thought=thought if isinstance(thought, str) else str(thought),
        action=action,
        error=error,
        fields=fields,
        valid_format=strict and all(key in fields for key in required_keys),
        action_span=span,
    )


def find_action_span(text: str, action_key: str = "action") -> tuple[int, int] | None:
    """Locate the action part of an answer (method reference, section 6).

    Args:
        text: The sampled text, well formed or not.
        action_key: Key of the action.

    Returns:
        Character offsets [start, end): from the opening quote of the action key to the end of the text if it
        is the last key, else to the end of the action's value. None if the object has no such key.
    """
    start, value_start = -1, -1
    for key, at, value_at in _outer_keys(text, action_key):
        if start >= 0 and key != action_key:
            return start, _value_end(text, value_start)
        if start < 0 and key == action_key:
            start, value_start = at, value_at
    return (start, len(text)) if start >= 0 else None


def find_value_span(text: str, key: str) -> tuple[int, int] | None:
    """Locate the value of a key of the answer, without the quotes of a string.

    Args:
        text: The sampled text, well formed or not.
        key: A key of the outermost object.

    Returns:
        Character offsets [start, end); None if the object has no such key.
    """
    for found, _, start in _outer_keys(text, key):
        if found == key:
            end = _value_end(text, start)
            if text[start:end].startswith('"'):
                return start + 1, end - 1 if text[start + 1 : end].endswith('"') else end
            return start, end
    return None


def _outer_keys(text: str, wanted: str) -> Iterator[tuple[str, int, int]]:
    """Yield the keys of the outermost object, where each begins and where its value does; none if ``wanted`` is not."""
    if wanted not in text:
        return
    depth = 0
    for match in _TOKEN.finditer(text):
        piece = match.group()
        if piece in "{[":
            depth += 1
        elif piece in "}]":
            depth -= 1
        elif depth <= 1 and (colon := _COLON.match(text, match.end())):
            yield (piece[1:-1] if piece[0] in "\"'" else piece), match.start(), colon.end()


def _value_end(text: str, start: int) -> int:
    """Return where the JSON value that begins at ``start`` ends."""
    depth = 0
    for match in _TOKEN.finditer(text, start):
        if match.start() > start and depth == 0:
            break
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(match.group(), 0)
        if depth == 0:
            return match.end()
    bare = _BARE_VALUE.match(text, start)
    return bare.end() if bare else len(text)


class _RepeatedKeyError(ValueError):
    """The action key stands twice in one object, with different values."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


@cache
def _decoder(action_key: str) -> json.JSONDecoder:
    """Build the strict decoder that notices two different actions in one object."""

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            values = [value for key, value in pairs if key == action_key]
            if any(value != values[0] for value in values):
                raise _RepeatedKeyError(f"{action_key!r} stands {len(values)} times with different values")
        return fields

    return json.JSONDecoder(object_pairs_hook=build, parse_constant=_refuse_constant)


def strip_fence(text: str) -> str:
    """Take a text out of the code fence around it, if there is one."""
    if "```" not in text:
        return text
    match = _FENCE.match(text)
    return match.group(1) if match else text


def _repair(body: str) -> Any:
    """Read slightly broken JSON, or return None."""
    if body.count("{") + body.count("[") > MAX_BRACKETS:
        return None
    from json_repair import repair_json  # only broken answers pay for the import

    try:
        return repair_json(body, return_objects=True, skip_json_loads=True)
    except Exception:  # noqa: BLE001 - third-party code on arbitrary text: whatever it raises, unreadable
        return None


def _read_action(fields: dict[str, Any], action_key: str) -> tuple[str | None, str | None]:
    """Return (action, None) or (None, reason)."""
    if action_key not in fields:
        return None, f"the key {action_key!r} is missing"
    value = fields[action_key]
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None, f"the value of {action_key!r} must be text or a whole number, not {type(value).__name__}"
    action = _normalise(value)
    return (action, None) if action else (None, f"the value of {action_key!r} is empty")


def _normalise(value: str | int) -> str:
    return str(value).strip().lower()


@cache
def _statement(action_key: str) -> re.Pattern[str]:
    """Match the action key in any quoting, then its value if that is complete."""
    value = r"""(?:"([^"\\]*)"|'([^'\\]*)'|([^\s"',{}\[\]]+)\s*(?=[,}\n]))"""
    return re.compile(rf"""\b{re.escape(action_key)}\b["']?\s*:(?:\s*{value})?""")


def _states_once(body: str, action_key: str, action: str) -> bool:
    """Return whether a text that needed repair states this action itself, once, with a visible end."""
    matches = _statement(action_key).findall(body)
    return len(matches) == 1 and _normalise("".join(matches[0])) == action
