"""Clients that are slow, in both directions: memory stays bounded, and nobody else waits."""

from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.process import key
from support.wire import until

MEGABYTE = 1 << 20


def upload(server, size, chunked=False, path="/upload"):
    piece = b"x" * MEGABYTE
    with server.wire() as wire:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        wire.send(f"POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode())
        for _ in range(size // MEGABYTE):
            wire.send(b"100000\r\n" + piece + b"\r\n" if chunked else piece)
        if chunked:
            wire.send(b"0\r\n\r\n")
        return json.loads(wire.answer().body)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_hundred_megabytes_up(patient, chunked):
    upload(patient, 4 * MEGABYTE, chunked)
    before = patient.resident()
    seen = upload(patient, 100 * MEGABYTE, chunked)
    assert seen["bytes"] == 100 * MEGABYTE
    assert patient.resident() - before < 8 * MEGABYTE


def test_a_hundred_megabytes_down(patient, name):
    """Faster than the client takes it, so that the output is never empty."""
    with patient.wire() as wire:
        wire.get(f"/flood?total={4 * MEGABYTE}")
        wire.answer()
        before = patient.resident()
        wire.get(f"/flood?total={100 * MEGABYTE}&size=200000")
        wire.head()
        total = largest = 0
        while part := wire.chunk():
            total += len(part)
            if total // (10 * MEGABYTE) != (total - len(part)) // (10 * MEGABYTE):
                largest = max(largest, patient.resident() - before)
        assert total >= 100 * MEGABYTE
    assert largest < 24 * MEGABYTE  # of garbage; all of it would be a hundred


def test_an_upload_that_the_app_does_not_read_stays_with_the_client(patient, name):
    """The server takes a window's worth and no more; the rest waits in the kernel, and then at the client."""
    size = 50 * MEGABYTE
    with patient.wire() as wire, ThreadPoolExecutor(1) as pool:
        wire.send(f"POST /upload?key={name}&hold=go HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
        patient.noted(name, "begun")
        before, taken = patient.resident(), patient.count("connections.bytes_in")
        sending = pool.submit(wire.send, b"x" * size)
        assert until(lambda: patient.count("connections.reads_paused") > 0)
        assert patient.count("connections.bytes_in") - taken < MEGABYTE // 2
        assert patient.resident() - before < 4 * MEGABYTE
        patient.say(name, "go")
        sending.result()
        assert json.loads(wire.answer().body)["bytes"] == size


def test_send_waits_for_a_client_that_reads_nothing(patient, name):
    """64 KiB in the server and what the kernel's buffers hold; the app is stuck then."""
    with patient.wire(receive_buffer=4096) as wire:
        wire.get(f"/flood?key={name}&total={50 * MEGABYTE}&size=16384")
        sent = until(lambda: steady(patient, name))
        kernel = kernel_buffer()
        assert 0 < sent < kernel + MEGABYTE, f"the app sent {sent} bytes; the kernel holds up to {kernel}"
        got = wire.answer().body
        assert len(got) == 50 * MEGABYTE
    patient.noted(name, "done")


def steady(server, name):
    """How far the app is, once it has not moved for a while."""
    first = int(server.get(f"/progress?key={name}").body)
    time.sleep(0.2)
    return first if first == int(server.get(f"/progress?key={name}").body) else 0


def kernel_buffer():
    """The most that a socket's send buffer grows to by itself."""
    with open("/proc/sys/net/ipv4/tcp_wmem") as file:
        return int(file.read().split()[2])


@pytest.mark.parametrize("size", [100, 65536])
def test_a_stream_over_memory_does_not_wedge_the_worker(patient, name, size):
    """An app that never waits by itself, and a client that reads slowly and leaves."""
    with patient.wire(receive_buffer=4096) as wire:
        wire.get(f"/flood?key={name}&size={size}")
        wire.head()
        for _ in range(10):
            wire.more(4096)
            began = time.monotonic()
            assert patient.get("/").body == b"hello"
            assert time.monotonic() - began < 0.5
        wire.close()
    assert "send raised OSError" in patient.noted(name, "stopped")


@pytest.mark.parametrize("size", [10, 65536])
def test_a_stream_to_a_fast_client_lets_others_through(patient, name, size):
    with patient.wire() as wire, ThreadPoolExecutor(1) as pool:
        wire.get(f"/flood?key={name}&size={size}")
        stop = []

        def read():
            while not stop:
                wire.buffer = b""
                wire.more()

        reading = pool.submit(read)
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert patient.get("/").body == b"hello"
            slowest = max(slowest, time.monotonic() - began)
        stop.append(True)
        reading.result()
    assert slowest < 0.5
    patient.noted(name, "stopped")


def test_a_finished_answer_does_not_wait_behind_a_blocking_neighbour(patient):
    """Both calls start in one wake-up of the app's loop; the first is done at once, the second blocks it."""
    for _ in range(3):
        with patient.wire() as quick, patient.wire() as blocking, patient.wire() as holding:
            # While the loop is held up both of these arrive, so that it finds them together.
            patient.block(holding, 0.5)
            quick.get("/")
            assert until(lambda: patient.count("calls.in_flight") == 2)
            blocking.get("/block?seconds=0.7")
            assert until(lambda: patient.count("calls.in_flight") == 3)
            assert holding.answer().body == b"blocked"
            began = time.monotonic()
            assert quick.answer().body == b"hello"
            assert time.monotonic() - began < 0.6
            assert blocking.answer().body == b"blocked"


@contextlib.contextmanager
def crowd(server, count, **options):
    """Many connections. A test that fails must not leave them behind: the server is that of others, too."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.wire(**options)) for _ in range(count)]


def test_a_thousand_slow_calls_at_once(patient):
    with crowd(patient, 1000) as wires:
        began = time.monotonic()
        for wire in wires:
            wire.get("/slow?seconds=0.5")
        for wire in wires:
            assert wire.answer().body == b"slow"
        assert time.monotonic() - began < 10
        for wire in wires:
            assert wire.get("/").answer().body == b"hello"


def test_a_thousand_clients_that_leave(patient):
    left, claimed = patient.count("calls.left"), patient.count("calls.claimed")
    with crowd(patient, 1000) as wires:
        for wire in wires:
            wire.get("/wait")
        assert until(lambda: patient.count("calls.claimed") == claimed + 1000)
        for wire in wires:
            wire.reset()
        assert until(lambda: patient.count("calls.left") == left + 1000)


def test_large_uploads_side_by_side(patient):
    """One link, many bodies: each has its own window."""
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda _: upload(patient, 8 * MEGABYTE, path=f"/upload?key={key()}"), range(8)))
    assert [one["bytes"] for one in sizes] == [8 * MEGABYTE] * 8


def test_a_hundred_clients_that_read_nothing(patient):
    """Each costs its window; others are served; all of them end."""
    before = patient.resident()
    with crowd(patient, 100, receive_buffer=4096) as wires:
        names = [key() for _ in wires]
        for wire, one in zip(wires, names):
            wire.get(f"/flood?key={one}&size=30000")
        for one in names:
            assert until(lambda one=one: progress(patient, one) > 0)
        assert patient.get("/").body == b"hello"
        assert patient.resident() - before < 100 * MEGABYTE
        for wire in wires:
            wire.reset()
    for one in names:
        patient.noted(one, "stopped")


def progress(server, name):
    return int(server.get(f"/progress?key={name}").body)
