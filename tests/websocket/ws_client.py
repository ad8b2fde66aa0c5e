"""A WebSocket client that sends whatever frames a test wants, and the names of their parts."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

PATIENCE = 10
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MORE, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1 = 0x80, 0x40


def mask(payload: bytes, key: bytes) -> bytes:
    n = len(payload)
    pad = (key * (n // 4 + 1))[:n]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(pad, "little")).to_bytes(n, "little")


def frame(first: int, payload: bytes = b"", key: bytes = b"\x37\xfa\x21\x3d") -> bytes:
    n = len(payload)
    length = (
        bytes([0x80 | n])
        if n < 126
        else b"\xfe" + struct.pack(">H", n)
        if n < 65536
        else b"\xff" + struct.pack(">Q", n)
    )
    return bytes([first]) + length + key + mask(payload, key)


def text(s: str) -> bytes:
    return frame(FIN | TEXT, s.encode())


def closing(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(FIN | CLOSE, b"" if code is None else struct.pack(">H", code) + reason)


def handshake(path: str, *fields: str, method: str = "GET", version: str = "13", key: bytes = KEY) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: h", "Upgrade: websocket", "Connection: keep-alive, Upgrade"]
    if version:
        lines.append(f"Sec-WebSocket-Version: {version}")
    if key:
        lines.append(f"Sec-WebSocket-Key: {key.decode()}")
    return "\r\n".join([*lines, *fields, "", ""]).encode()


class Client:
    """A connection. Reads wait for PATIENCE seconds at most."""

    def __init__(self, port: int, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes, chop: int = 0) -> None:
        if not chop:
            self.socket.sendall(data)
            return
        with contextlib.suppress(ConnectionError):  # it may have heard enough
            for i in range(0, len(data), chop):
                self.socket.sendall(data[i : i + chop])

    def fill(self) -> bool:
        data = self.socket.recv(1 << 18)
        self.buffer += data
        return bool(data)

    def take(self, n: int) -> bytes:
        while len(self.buffer) < n:
            if not self.fill():
                raise EOFError(self.buffer)
        part, self.buffer = self.buffer[:n], self.buffer[n:]
        return part

    def head(self) -> tuple[int, list[tuple[str, str]]]:
        """The status and fields of an answer."""
        while b"\r\n\r\n" not in self.buffer:
            if not self.fill():
                raise EOFError(self.buffer)
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        return int(first.split()[1]), [(line.partition(": ")[0], line.partition(": ")[2]) for line in lines]

    def rest(self) -> bytes:
        while self.fill():
            pass
        rest, self.buffer = self.buffer, b""
        return rest

    def open(self, path: str, *fields: str) -> Client:
        self.send(handshake(path, *fields))
        status, answer = self.head()
        assert status == 101, (status, answer, self.rest())
        assert dict(answer)["sec-websocket-accept"] == ACCEPT
        self.answer = answer
        return self

    def frame(self) -> tuple[int, bytes]:
        """The next frame: its first byte and its payload."""
        first, length = self.take(2)
        assert length < 0x80, "a server masks nothing (RFC 6455 5.1)"
        if length == 126:
            (length,) = struct.unpack(">H", self.take(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self.take(8))
        return first, self.take(length)

    def message(self) -> str | bytes:
        """The next message; control frames are passed over."""
        parts, opcode = b"", 0
        while True:
            first, payload = self.frame()
            if first & 0xF >= CLOSE:
                assert first & 0xF != CLOSE, payload
                continue
            opcode = opcode or first & 0xF
            parts += payload
            if first & FIN:
                return parts.decode() if opcode == TEXT else parts

    def closed(self) -> tuple[int | None, bytes]:
        """Code and reason of the close frame that comes next; messages before it are passed over."""
        while True:
            first, payload = self.frame()
            if first & 0xF == CLOSE:
                return (struct.unpack(">H", payload[:2])[0], payload[2:]) if payload else (None, b"")

    def ended(self) -> None:
        """Wait for the end of the connection: a FIN, not a reset."""
        assert self.rest() == b""


def until(condition, seconds: float = PATIENCE):
    """Wait for a condition; returns its last value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return value
