"""Real servers on this machine that behave as a test wants: chat endpoints that are slow, wrong, or in trouble."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What a scripted server does with one request."""

    text: str | None = ""
    """The content of the message; None sends ``raw`` instead."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes = b""
    delay: float = 0.0
    drop: bool = False
    """True closes the connection without an answer."""
    usage: dict[str, int] | None = field(default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 5})


class ScriptedServer:
    """Answers by a rule over the number of the request (from 0) and its body; remembers every request."""

    def __init__(self, rule: Callable[[int, dict[str, Any]], Reply]) -> None:
        self.rule = rule
        self.get_status = 200
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    number = len(outer.bodies)
                    outer.bodies.append(body)
                    outer.headers.append(dict(self.headers))
                    outer.times.append(time.monotonic())
                reply = outer.rule(number, body)
                time.sleep(reply.delay)
                if reply.drop:
                    self.close_connection = True
                    return
                message = {"choices": [{"message": {"content": reply.text}}], "usage": reply.usage}
                data = reply.raw if reply.text is None else json.dumps(message).encode()
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self.send_response(outer.get_status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def scripted(
    *replies: Reply | str, rule: Callable[[int, dict[str, Any]], Reply] | None = None
) -> Iterator[ScriptedServer]:
    """Serve these replies in turn, the last one ever after."""
    given = [Reply(reply) if isinstance(reply, str) else reply for reply in replies]
    server = ScriptedServer(rule or (lambda number, _body: given[min(number, len(given) - 1)]))
    try:
        yield server
    finally:
        server.close()
