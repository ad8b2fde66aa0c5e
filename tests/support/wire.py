"""A client that sends bytes and reads answers, and hides nothing."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
import weakref
from typing import NamedTuple

PATIENCE = 15.0
"""Seconds after which a test that waits for something gives up."""


class Answer(NamedTuple):
    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes
    version: str
    framing: str
    """How the body's end was known: "none", "length", "chunked" or "close"."""
    trailers: list[tuple[str, str]]

    def field(self, name: str) -> str | None:
        found = [value for key, value in self.fields if key.lower() == name]
        assert len(found) < 2, f"{name} is there twice: {self.fields}"
        return found[0] if found else None

    @property
    def text(self) -> str:
        return self.body.decode()


class Cut(Exception):
    """The connection ended in the middle of an answer. `reset`: by a reset, not a FIN."""

    def __init__(self, got: bytes, reset: bool) -> None:
        super().__init__(f"the connection was cut ({'reset' if reset else 'FIN'}) after {got[-200:]!r}")
        self.got = got
        self.reset = reset


class Wire:
    """One connection. Everything is read with a deadline; nothing is read ahead of what is asked for."""

    every: weakref.WeakSet[Wire] = weakref.WeakSet()
    """All there are, for who cleans up after a test that failed."""

    def __init__(self, address: tuple[str, int] | str, receive_buffer: int | None = None) -> None:
        if isinstance(address, str):
            family = socket.AF_UNIX
        else:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect(address)
        except BaseException:
            self.socket.close()
            raise
        self.buffer = b""
        self.every.add(self)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def send(self, data: bytes) -> Wire:
        self.socket.sendall(data)
        return self

    def get(self, path: str, *fields: str, method: str = "GET", version: str = "HTTP/1.1") -> Wire:
        lines = [f"{method} {path} {version}", "Host: test", *fields, "", ""]
        return self.send("\r\n".join(lines).encode())

    def last(self, data: bytes) -> Wire:
        """Send this and a FIN, in one segment if it fits."""
        sent = self.socket.send(data, getattr(socket, "MSG_MORE", 0))
        while sent < len(data):
            sent += self.socket.send(data[sent:], getattr(socket, "MSG_MORE", 0))
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close by a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def more(self, size: int = 65536) -> None:
        try:
            data = self.socket.recv(size)
        except ConnectionError:
            raise Cut(self.buffer, True) from None
        if not data:
            raise Cut(self.buffer, False)
        self.buffer += data

    def take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self.more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def line(self) -> str:
        while b"\r\n" not in self.buffer:
            self.more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line.decode("latin-1")

    def fields(self) -> list[tuple[str, str]]:
        found = []
        while True:
            line = self.line()
            if not line:
                return found
            name, colon, value = line.partition(":")
            assert colon and name, f"not a field: {line!r}"
            found.append((name, value.strip()))

    def head(self) -> tuple[str, int, str, list[tuple[str, str]]]:
        version, _, rest = self.line().partition(" ")
        status, _, reason = rest.partition(" ")
        assert version == "HTTP/1.1", f"got version {version!r}"
        return version, int(status), reason, self.fields()

    def answer(self, method: str = "GET") -> Answer:
        """The next answer, taken apart as RFC 9112 6.3 says."""
        version, status, reason, fields = self.head()
        lower = {name.lower(): value for name, value in fields}
        trailers: list[tuple[str, str]] = []
        if method == "HEAD" or status in (204, 304) or 100 <= status < 200:
            body, framing = b"", "none"
        elif lower.get("transfer-encoding") == "chunked":
            assert "content-length" not in lower, fields
            body, framing = self.chunks(), "chunked"
            trailers = self.fields()
        elif "content-length" in lower:
            body, framing = self.take(int(lower["content-length"])), "length"
        else:
            body, framing = self.rest(), "close"
        return Answer(status, reason, fields, body, version, framing, trailers)

    def chunk(self) -> bytes:
        size = int(self.line(), 16)
        if size == 0:
            return b""
        data = self.take(size)
        assert self.take(2) == b"\r\n", "a chunk does not end in CRLF"
        return data

    def chunks(self) -> bytes:
        parts = []
        while True:
            part = self.chunk()
            if not part:
                return b"".join(parts)
            parts.append(part)

    def rest(self) -> bytes:
        """All that comes until the server closes in an orderly way."""
        with contextlib.suppress(Cut):
            while True:
                self.more()
        self.socket.settimeout(0.001)
        try:
            assert self.socket.recv(1) == b""
        except ConnectionError:
            raise Cut(self.buffer, True) from None
        data, self.buffer = self.buffer, b""
        return data

    def ended(self) -> None:
        """Assert that the server closes in an orderly way and sends no more."""
        assert self.rest() == b""

    def quiet(self, seconds: float = 0.1) -> bool:
        """Whether nothing comes, not even the end, for so long."""
        if self.buffer:
            return False
        self.socket.settimeout(seconds)
        try:
            self.more()
        except TimeoutError:
            return True
        except socket.timeout:  # noqa: UP041  not a TimeoutError before Python 3.10
            return True
        except Cut:
            return False
        finally:
            self.socket.settimeout(PATIENCE)
        return False


def until(condition, seconds: float = PATIENCE):
    """Wait for a condition to come true, and return it; the last value if it does not."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.005)
