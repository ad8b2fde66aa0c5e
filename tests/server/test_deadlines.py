"""Deadlines: the server of these tests has 0.5 s for a head, a body's next part and a write, 1 s for keep-alive."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

from support.wire import Cut, until

TICK = 0.8  # a deadline comes up to two ticks of the wheel late, and machines are slow


def elapsed(began):
    return time.monotonic() - began


def test_a_connection_without_a_byte(server):
    before = server.count("connections.timed_out.header")
    with server.wire() as wire:
        began = time.monotonic()
        data = wire.rest()
        assert data == b"" or data.startswith(b"HTTP/1.1 408 ")
        assert 0.45 < elapsed(began) < 0.5 + TICK
    assert until(lambda: server.count("connections.timed_out.header") > before)


def test_half_a_head(server):
    with server.wire() as wire:
        began = time.monotonic()
        wire.send(b"GET / HTTP/1.1\r\nHo")
        assert wire.answer().status == 408
        assert 0.45 < elapsed(began) < 0.5 + TICK
        wire.ended()


def test_a_dripping_head(server):
    """The deadline is for the whole head."""
    with server.wire() as wire:
        began = time.monotonic()
        head = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100
        try:
            for byte in head:
                wire.send(bytes([byte]))
                if not wire.quiet(0.08):
                    break
        except ConnectionError:
            pass
        assert 0.45 < elapsed(began) < 0.5 + TICK
        assert wire.buffer == b"" or wire.buffer.startswith(b"HTTP/1.1 408 ")


def test_a_dripping_head_on_a_kept_connection(server):
    with server.wire() as wire:
        wire.get("/").answer()
        began = time.monotonic()
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: aaaaaaaaaaaaaaaaa":
            wire.send(bytes([byte]))
            if not wire.quiet(0.08):
                break
        assert 0.45 < elapsed(began) < 0.5 + TICK
        assert wire.answer().status == 408


def test_an_idle_connection(server):
    before = server.count("connections.timed_out.keep_alive")
    with server.wire() as wire:
        wire.get("/").answer()
        began = time.monotonic()
        wire.ended()
        assert 0.95 < elapsed(began) < 1 + TICK
    assert until(lambda: server.count("connections.timed_out.keep_alive") > before)


def test_a_body_that_stops(server, name):
    with server.wire() as wire:
        wire.send(f"POST /upload?key={name} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc".encode())
        began = time.monotonic()
        assert wire.answer().status == 408
        assert 0.45 < elapsed(began) < 0.5 + TICK
        wire.ended()
    server.noted(name, "disconnect")


def test_a_slow_body_is_not_a_stopped_one(server):
    with server.wire() as wire:
        wire.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        for byte in b"abcde":
            assert wire.quiet(0.2)
            wire.send(bytes([byte]))
        assert json.loads(wire.answer().body)["bytes"] == 5


def test_the_body_deadline_stands_still_while_the_app_does_not_read(server, name):
    """The rest is in the client's hands, but the server has paused reading."""
    size = 2_000_000
    with server.wire() as wire, ThreadPoolExecutor(1) as pool:
        head = f"POST /upload?key={name}&hold=go HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
        sending = pool.submit(wire.send, head.encode() + b"x" * size)
        server.noted(name, "begun")
        until(lambda: server.count("connections.reads_paused"))
        assert wire.quiet(1)
        server.say(name, "go")
        sending.result()
        assert json.loads(wire.answer().body)["bytes"] == size


def test_an_app_may_take_its_time(server):
    """No deadline for the client runs while it is the app that has to act."""
    with server.wire() as wire:
        assert wire.get("/slow?seconds=1.3").answer().body == b"slow"


def test_a_stream_may_pause(server):
    with server.wire() as wire:
        assert wire.get("/parts?n=2&part=a&pause=0.7").answer().body == b"aa"


def test_a_client_that_does_not_read(server, name):
    """The write deadline; the app's send() raises then."""
    before = server.count("connections.timed_out.write")
    with server.wire(receive_buffer=4096) as wire:
        wire.get(f"/flood?key={name}")
        began = time.monotonic()
        assert "send raised OSError" in server.noted(name, "stopped")
        assert 0.45 < elapsed(began) < 2
        try:
            wire.chunks()
        except (Cut, ValueError):
            pass
        else:
            raise AssertionError("the answer looks complete")
    assert until(lambda: server.count("connections.timed_out.write") == before + 1)


def test_a_client_that_reads_slowly(server, name):
    """Progress is enough: the deadline starts anew with every byte that the kernel takes."""
    total = 3_000_000
    with server.wire(receive_buffer=16384) as wire:
        wire.get(f"/flood?key={name}&total={total}&size=30000")
        began, got = time.monotonic(), 0
        wire.head()
        while part := wire.chunk():
            got += len(part)
            if elapsed(began) < 1.2:
                time.sleep(0.04)  # what is measured is a slow client
        assert got == total
        assert elapsed(began) > 1


def test_requests_in_time_keep_a_connection(server):
    with server.wire() as wire:
        for _ in range(2):
            assert wire.get("/").answer().body == b"hello"
            assert wire.quiet(0.7)
