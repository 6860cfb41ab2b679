"""An HTTP server that answers like OpenAI's chat completions, and sees what its clients do."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Body = dict[str, Any]
Answer = str | tuple[str, dict[str, float]] | int | tuple[int, str]
"""A text, a text with log-probabilities for the first token (the drawn one first), or an HTTP status, also with a message."""


class ChatServer(ThreadingHTTPServer):
    """Answers each request with `answer(body)`, after `delay` seconds."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Callable[[Body], Answer], delay: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.delay = answer, delay
        self.lock = threading.Lock()
        self.bodies: list[Body] = []
        self.active = self.peak = self.dropped = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """Clients that hang up are what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append(body)
            server.active += 1
            server.peak = max(server.peak, server.active)
        try:
            alive = self._wait(server.delay)
        finally:
            with server.lock:
                server.active -= 1
                server.dropped += not alive
        if alive:
            self._reply(server.answer(body))

    def _wait(self, seconds: float) -> bool:
        """Whether the client is still there in the end."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([self.connection], [], [], min(left, 0.02))
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return False
        return True

    def _reply(self, answer: Answer) -> None:
        if isinstance(answer, int):
            answer = (answer, f"status {answer}")
        if isinstance(answer, tuple) and isinstance(answer[0], int):
            status, content = answer[0], {"error": {"message": answer[1], "type": "test", "code": None}}
        else:
            usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
            content = {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "test",
                "choices": [_choice(answer)],
                "usage": usage,
            }
            status = 200
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("retry-after-ms", "10")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


def _choice(answer: str | tuple[str, dict[str, float]]) -> Body:
    text, tokens = (answer, None) if isinstance(answer, str) else answer
    choice: Body = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    if tokens:
        entries = [{"token": token, "logprob": logprob, "bytes": None} for token, logprob in tokens.items()]
        choice["logprobs"] = {"content": [{**entries[0], "top_logprobs": entries}], "refusal": None}
    return choice


@pytest.fixture(scope="session")
def chat_server() -> type[ChatServer]:
    """To be used in a `with` block."""
    return ChatServer
