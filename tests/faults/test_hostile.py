"""Input that means harm, or nothing: the server answers what it can, survives the rest, and its books balance."""

from __future__ import annotations

import os
import random
import socket
import time

import pytest
from support.wire import Cut, until

SOAK = os.environ.get("SPVN_SOAK") == "1"
ROUNDS = 40 if SOAK else 3

WORDS = [
    b"GET ", b"POST ", b"HEAD ", b"/", b"/echo", b"/upload", b"/early", b"/parts?n=3", b"/fail?where=middle",
    b"/slow?seconds=0.01", b"/flood?total=200000", b"/status?code=204", b"/nothing?where=after", b"/exit",
    b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"Host: a\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n",
    b"TE: trailers\r\n", b"5\r\nabcde\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"abcde", b"\xff\xfe",
    b"\x16\x03\x01",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"Sec-WebSocket-Key: x\r\n", b"X-Forwarded-For: 1.2.3.4\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /slow?seconds=0.01 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde",
    b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
]  # fmt: skip


def babble(rng):
    kind = rng.random()
    if kind < 0.15:
        return rng.randbytes(rng.randrange(1, 400)) if hasattr(rng, "randbytes") else os.urandom(100)
    data = b"".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 25)))
    if kind < 0.4:
        at = rng.randrange(len(data))
        data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    return data


def misbehave(server, rng):
    """One connection that sends nonsense in pieces, reads some of what comes, and goes in one way or another."""
    wire = server.wire(receive_buffer=rng.choice([None, 4096]))
    try:
        wire.socket.settimeout(0.02)
        for _ in range(rng.randrange(1, 5)):
            data = babble(rng)
            cut = rng.randrange(len(data) + 1)
            wire.send(data[:cut])
            if rng.random() < 0.3:
                try:
                    wire.more()
                except (OSError, Cut):
                    pass
            wire.send(data[cut:])
        how = rng.random()
        if how < 0.3:
            wire.socket.shutdown(socket.SHUT_WR)
            try:
                wire.more()
            except (OSError, Cut):
                pass
    except OSError:
        pass
    finally:
        (wire.reset if rng.random() < 0.5 else wire.close)()


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_nonsense(shared_servers, transport, seed):
    server = shared_servers(transport, "--timeout-header", "0.5", "--timeout-body", "0.5", "--timeout-keep-alive", "1",
                            "--timeout-write", "0.5", "--io-threads", "2")  # fmt: skip
    seed = random.randrange(1 << 32) if SOAK else seed
    rng = random.Random(seed)
    for _ in range(150):
        misbehave(server, rng)
    assert server.get("/").body == b"hello", f"seed {seed}"
    assert until(lambda: server.count("connections.open") == 0), f"seed {seed}"
    server.check()


def test_every_cut_of_a_request(server):
    """Two requests, cut in two at every byte."""
    data = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n" + (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nde"
    )
    with server.wire() as wire:
        for cut in range(1, len(data), 1 if SOAK else 3):
            wire.send(data[:cut])
            server.count("calls.arrived")  # gives the server the time to see the first part alone
            wire.send(data[cut:])
            assert [wire.answer().body, wire.answer().body] == [b"abc", b"de"], cut


def test_slow_heads_by_the_hundred(server):
    """Slowloris: each of them ends at its deadline; others are served meanwhile."""
    wires = [server.wire().send(b"GET / HTTP/1.1\r\nHo") for _ in range(200)]
    ended = time.monotonic() + 3
    while time.monotonic() < ended and server.count("connections.open") > 1:
        for wire in wires:
            try:
                wire.send(b"s")
            except OSError:
                pass
        assert server.get("/").body == b"hello"
    assert until(lambda: server.count("connections.open") == 0, 4)
    for wire in wires:
        wire.close()


def test_floods_of_tiny_chunks(patient):
    """A megabyte as chunks of one byte, with extensions as large as the bound lets them be in all."""
    before = patient.cpu()
    with patient.wire() as wire:
        wire.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            wire.send(b"1\r\nx\r\n" * 1000)
        wire.send(b"0\r\n\r\n")
        assert b"100000" in wire.answer().body
    assert patient.cpu() - before < 3


def test_endless_chunk_extensions(patient):
    with patient.wire() as wire:
        wire.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;")
        try:
            for _ in range(100):
                wire.send(b"x" * 1000)
        except OSError:
            pass
        assert wire.answer().status == 400


def test_endless_trailers(patient):
    with patient.wire() as wire:
        wire.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        try:
            for _ in range(100):
                wire.send(b"X: " + b"x" * 1000 + b"\r\n")
        except OSError:
            pass
        assert wire.answer().status == 431


def test_pipelines_without_end_are_read_only_as_they_are_answered(patient):
    """A client that only sends: what the server holds of it is bounded."""
    before = patient.resident()
    request = b"GET /parts?n=1&size=1000 HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
    with patient.wire(receive_buffer=4096) as wire:
        wire.socket.settimeout(0.5)
        sent = 0
        try:
            while sent < 40_000_000:
                sent += wire.socket.send(request)
        except OSError:
            pass
        assert sent < 40_000_000, "nothing held the client back"
        assert patient.resident() - before < 24 << 20
        assert patient.get("/").body == b"hello"
        wire.reset()


@pytest.mark.parametrize("size", [60_000, 64_000])
def test_large_heads(patient, size):
    """As large as they may be, many at a time: heads and bodies share a ring."""
    fields = f"X: {'x' * size}"
    wires = [patient.wire() for _ in range(40)]
    for wire in wires:
        wire.send(f"POST /echo HTTP/1.1\r\nHost: a\r\n{fields}\r\nContent-Length: 70000\r\n\r\n".encode())
    for wire in wires:
        wire.send(b"y" * 70_000)
    for wire in wires:
        assert wire.answer().body == b"y" * 70_000
        wire.close()


def test_connections_come_and_go(patient):
    """Ten thousand of them, one after the other, none saying a word (or three)."""
    before = patient.resident()
    for number in range(10_000 if SOAK else 2000):
        wire = patient.wire()
        if number % 3 == 0:
            wire.send(b"GET / HTTP/1.1\r\n")
        (wire.reset if number % 2 else wire.close)()
    assert until(lambda: patient.count("connections.open") == 0)
    assert patient.resident() - before < 16 << 20


def test_the_control_socket_survives_nonsense(serve):
    from support.wire import Wire

    server = serve()
    for data in [b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", b"x" * 20_000, b""]:
        with Wire(server.control) as wire:
            try:
                wire.last(data)
                wire.rest()
            except (OSError, Cut):
                pass
    assert server.stats()["calls"]["arrived"] == 0
