"""What an external teacher is told and what its replies mean: typed, never guessed from single words."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gtr_agents.parsing import parse_answer, strip_fence
from gtr_agents.types import Correction, Image, Prompt, Step

if TYPE_CHECKING:
    from gtr_agents.prompts import PromptTemplate

_RULES = """\
You check the reasoning of an agent that sees the image and the task below. Ask yourself: What does the image show, \
and does the agent describe it correctly? Which plan does the agent follow, and can it still succeed? Does its \
reasoning lead to the right next step?
Reply with exactly one JSON object and nothing else:
{"ok": true or false, "solvable": true, false or null, "target": the plan that succeeds or null, \
"correction": {...} or null}
"ok" is true if image, plan and reasoning are right; "correction" is null then.
"solvable" is false if nothing the agent can do leads to success any more; "correction" is null then, too.
Otherwise "correction" holds what the agent should have written, in the agent's own form, with the keys """


@dataclass(frozen=True, slots=True)
class Verdict:
    """A corrector's reply (GTR, arXiv 2503.08525)."""

    ok: bool
    """True if the agent's reasoning is right."""
    solvable: bool | None
    """False if the task is lost; None if the corrector does not know."""
    target: str | None
    """The plan that succeeds."""
    correction: dict[str, Any] | None
    """The fields of a better answer."""


def chat_messages(step: Step, template: PromptTemplate, *, corrector: bool, tool: bool) -> list[dict[str, Any]]:
    """Write what is sent about a step.

    Args:
        step: The step; its prompt and picture are sent as the agent saw them.
        template: The format of the answers.
        corrector: True asks for a verdict on the agent's thought, False for an answer of the teacher's own.
        tool: True adds what the environment's expert would answer.

    Returns:
        Messages of the chat protocol, the picture as PNG in a data URL.
    """
    text, system = step.prompt.text, step.prompt.system
    if corrector:
        thought_keys = [key for key in template.required_keys if key != template.action_key]
        fields = step.response.answer.fields
        agent = json.dumps({key: fields.get(key) for key in thought_keys}, ensure_ascii=False)
        system = f"{_RULES}{', '.join(thought_keys)}.\n\n{system}".strip()
        text = f"{text}\n\nThe agent wrote: {agent}"
        if tool and step.expert_answer is not None:
            text += f"\nA solver that knows the state would write: {step.expert_answer}"
    return prompt_messages(replace(step.prompt, text=text, system=system))


def prompt_messages(prompt: Prompt) -> list[dict[str, Any]]:
    """Write a prompt as messages of the chat protocol, the picture as PNG in a data URL."""
    content = [
        {"type": "image_url", "image_url": {"url": data_url(prompt.image)}},
        {"type": "text", "text": prompt.text},
    ]
    user = {"role": "user", "content": content}
    return [{"role": "system", "content": prompt.system}, user] if prompt.system else [user]


def data_url(image: Image) -> str:
    """Write a picture, uint8 [H, W, 3], as PNG in a data URL."""
    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def parse_verdict(reply: str) -> Verdict | None:
    """Read a corrector's reply.

    Args:
        reply: Any text.

    Returns:
        The verdict; None if the text is none, in form or in meaning (not right, not lost, and nothing better to say).
    """
    try:
        fields = json.loads(strip_fence(reply))
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("ok"), bool):
        return None
    solvable, target, correction = (fields.get(key) for key in ("solvable", "target", "correction"))
    if not (solvable is None or isinstance(solvable, bool)) or not (target is None or isinstance(target, str)):
        return None
    if not (correction is None or isinstance(correction, dict)):
        return None
    if not fields["ok"] and solvable is not False and correction is None:
        return None
    return Verdict(fields["ok"], solvable, target, correction)


def correction_of(reply: str, step: Step, template: PromptTemplate, *, corrector: bool) -> Correction | None:
    """Turn a reply into what is imitated.

    Args:
        reply: The teacher's text.
        step: The step it is about.
        template: The format that an answer must have.
        corrector: True if the reply is a verdict, False if it is an answer.

    Returns:
        The correction; None if the reply is no use.
    """
    if not corrector:
        return _if_well_formed(reply, template, None)
    verdict = parse_verdict(reply)
    if verdict is None:
        return None
    if verdict.ok:
        return Correction(ok=True, solvable=verdict.solvable)
    if verdict.solvable is False or verdict.correction is None:
        return Correction(solvable=False)
    fields = verdict.correction | {template.action_key: step.response.answer.action}
    if any(key not in fields for key in template.required_keys):
        return None
    return _if_well_formed(template.write_answer(fields), template, verdict.solvable)


def _if_well_formed(text: str, template: PromptTemplate, solvable: bool | None) -> Correction | None:
    answer = parse_answer(
        text, template.required_keys, thought_key=template.thought_key, action_key=template.action_key
    )
    return Correction(answer=text, solvable=solvable) if answer.valid_format and answer.action else None
