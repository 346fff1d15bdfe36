"""A small server that answers chat requests with a policy, in the protocol of OpenAI's chat completions."""

from __future__ import annotations

import base64
import binascii
import io
import json
import queue
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np

from gtr_agents.seeding import torch_generator
from gtr_agents.types import Image, Prompt, Response

if TYPE_CHECKING:
    from gtr_agents.policies.vlm import VLMPolicy

MAX_BODY = 32 * 2**20
"""Bytes of a request."""
MAX_SIDE = 4096
"""Pixels of a picture's longer side."""
PREFIXES = ("data:image/png;base64,", "data:image/jpeg;base64,")
"""How a picture may be sent. Addresses are never fetched."""
_WAIT = 0.01
"""Seconds that a batch waits for company."""


class RequestError(Exception):
    """A request cannot be answered; the status says whose fault it is."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class ChatRequest:
    """What is asked of the policy."""

    prompt: Prompt
    """System text, user text and picture."""
    temperature: float
    """Sampling temperature, > 0; 0 answers greedily."""
    seed: int
    """Of the sampling."""
    max_tokens: int
    """Longest answer."""
    done: threading.Event = field(default_factory=threading.Event)
    """Set when there is a response or an error."""
    response: Response | None = None
    """The policy's answer."""
    error: str = ""
    """Why there is none."""


def read_request(body: object, longest: int) -> ChatRequest:
    """Check a request and take it apart.

    Args:
        body: What JSON held.
        longest: Tokens of an answer if the request does not say, and at most.

    Returns:
        The request.

    Raises:
        RequestError: If something is missing, of the wrong kind, or not offered here.
    """
    if not isinstance(body, dict):
        raise RequestError(400, f"expected a JSON object, got {type(body).__name__}")
    for option, value in (("stream", False), ("n", 1)):
        if body.get(option) not in (None, value):
            raise RequestError(400, f"{option}={body[option]!r} is not offered; only {value!r} is")
    temperature = _number(body, "temperature", 1.0, low=0.0)
    limit = _number(body, "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens", longest, low=1)
    seed = body.get("seed")
    seed = int(_number(body, "seed", 0)) if seed is not None else uuid.uuid4().int % 2**31
    return ChatRequest(_prompt(body.get("messages")), temperature, seed, min(int(limit), longest))


def _number(body: dict[str, Any], name: str, otherwise: float, low: float | None = None) -> float:
    value = body.get(name)
    if value is None:
        return otherwise
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (low is not None and not value >= low):
        told = "a number" if low is None else f"a number of at least {low:g}"
        raise RequestError(400, f"{name} must be {told}, got {value!r}")
    return value


def _prompt(messages: object) -> Prompt:
    """An optional system turn and one user turn with one picture, as the policy knows prompts."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise RequestError(400, "messages must be a list of objects with role and content")
    roles = [message.get("role") for message in messages]
    if roles not in (["user"], ["system", "user"]):
        raise RequestError(400, f"expected one user turn, and at most a system turn before it, got roles {roles!r}")
    texts, images = [], []
    for part in _parts(messages[-1].get("content")):
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif part.get("type") == "image_url" and isinstance(part.get("image_url"), dict):
            images.append(_image(part["image_url"].get("url")))
        else:
            raise RequestError(400, f"a part of the user turn is neither text nor image_url: type {part.get('type')!r}")
    if len(images) != 1:
        raise RequestError(400, f"expected one picture in the user turn, got {len(images)}")
    system = "\n".join(str(part.get("text", "")) for part in _parts(messages[0]["content"])) if len(roles) > 1 else ""
    return Prompt("\n".join(texts), images[0], system)


def _parts(content: object) -> Iterable[dict[str, Any]]:
    """The parts of a turn; a bare string is one text."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return content
    raise RequestError(400, "the content of a turn must be a text or a list of parts")


def _image(url: object) -> Image:
    """A picture from a data URL, uint8 [H, W, 3]."""
    import PIL.Image

    if not isinstance(url, str) or not url.startswith(PREFIXES):
        raise RequestError(400, f"a picture must be a data URL that begins with {' or '.join(PREFIXES)}")
    try:
        picture = PIL.Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2], validate=True)))
        if max(picture.size) > MAX_SIDE:
            raise RequestError(413, f"a picture may have {MAX_SIDE} pixels a side, got {picture.size}")
        return np.array(picture.convert("RGB"))
    except (binascii.Error, OSError, ValueError, SyntaxError) as error:
        raise RequestError(400, f"the picture cannot be read: {error}") from error


class PolicyServer(ThreadingHTTPServer):
    """Serves a policy at ``/v1/chat/completions``; requests that come together are answered together.

    Args:
        policy: Who answers; one thread uses it.
        name: What the model is called.
        host: Address to listen at.
        port: Port; 0 takes a free one.
        max_batch: Requests answered at once.
    """

    daemon_threads = True

    def __init__(
        self, policy: VLMPolicy, name: str, host: str = "127.0.0.1", port: int = 8000, max_batch: int = 16
    ) -> None:
        self.policy = policy
        self.name = name
        self.max_batch = max_batch
        self.n_answered = 0
        self._waiting: queue.Queue[ChatRequest | None] = queue.Queue()
        self._worker = threading.Thread(target=self._work, name="policy", daemon=True)
        self._worker.start()
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """Base address of the protocol, as clients want it."""
        host, port = self.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}/v1"

    def answer(self, request: ChatRequest) -> Response:
        """Wait for the policy's answer to a request.

        Raises:
            RequestError: If the policy failed.
        """
        self._waiting.put(request)
        request.done.wait()
        if request.response is None:
            raise RequestError(500, request.error)
        return request.response

    def server_close(self) -> None:
        """Close the socket and end the worker."""
        super().server_close()
        self._waiting.put(None)
        self._worker.join(timeout=10)

    def _work(self) -> None:
        """Answer what is waiting, batch by batch; requests of another temperature or length wait for the next one."""
        put_off: list[ChatRequest] = []
        while True:
            first = put_off.pop(0) if put_off else self._waiting.get()
            if first is None:
                return
            batch = [first]
            deadline = time.monotonic() + _WAIT
            others, put_off = put_off, []
            while len(batch) < self.max_batch:
                try:
                    more = others.pop(0) if others else self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    break
                if more is None:
                    self._waiting.put(None)
                    break
                alike = (more.temperature, more.max_tokens) == (first.temperature, first.max_tokens)
                (batch if alike else put_off).append(more)
            put_off += others
            self._act(batch)

    def _act(self, batch: list[ChatRequest]) -> None:
        first = batch[0]
        generators = [torch_generator(request.seed, "served") for request in batch] if first.temperature else None
        try:
            responses = self.policy.act(
                [request.prompt for request in batch],
                generator=generators,
                temperature=first.temperature or None,
                max_new_tokens=first.max_tokens,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it and the server live on
            for request in batch:
                request.error = f"the model failed: {type(error).__name__}: {error}"
        else:
            for request, response in zip(batch, responses, strict=True):
                request.response = response
            self.n_answered += len(batch)
        for request in batch:
            request.done.set()


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: PolicyServer
    protocol_version = "HTTP/1.1"
    timeout = 120

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, {"status": "ok", "answered": self.server.n_answered})
        elif self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": self.server.name, "object": "model"}]})
        else:
            self._fail(RequestError(404, f"there is no {self.path}; ask /v1/chat/completions, /v1/models or /health"))

    def do_POST(self) -> None:
        try:
            self._send(200, self._completion())
        except RequestError as error:
            self._fail(error)

    def _completion(self) -> dict[str, Any]:
        if self.path != "/v1/chat/completions":
            raise RequestError(404, f"there is no {self.path}; post to /v1/chat/completions")
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            raise RequestError(411, "Content-Length is missing")
        if int(length) > MAX_BODY:
            raise RequestError(413, f"a request may have {MAX_BODY} bytes, got {length}")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise RequestError(400, f"the body is not JSON: {error}") from error
        response = self.server.answer(read_request(body, self.server.policy.max_new_tokens))
        sent, written = len(response.prompt_ids), len(response.token_ids)
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.server.name,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": response.text},
                    "finish_reason": "length" if response.truncated else "stop",
                }
            ],
            "usage": {"prompt_tokens": sent, "completion_tokens": written, "total_tokens": sent + written},
        }

    def _fail(self, error: RequestError) -> None:
        self.close_connection = True  # the body may not have been read
        kind = "invalid_request_error" if error.status < 500 else "server_error"
        self._send(error.status, {"error": {"message": str(error), "type": kind}})

    def _send(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content, ensure_ascii=False).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)
        except ConnectionError:
            self.close_connection = True  # the client has gone

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing; the command shows a count."""
