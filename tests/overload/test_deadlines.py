"""Deadlines and health checks hold while Python is stuck."""

from __future__ import annotations

import threading
import time

import pytest
from support.wire import Cut, until


def blocked(server, seconds):
    """Block the app's loop, and return once it is."""
    before = server.count("calls.claimed")
    thread = threading.Thread(target=server.get, args=(f"/block{seconds}",))
    thread.start()
    until(lambda: server.count("calls.claimed") > before)
    return thread


def test_504_while_the_loop_is_blocked(start):
    server = start("--timeout-request", "0.3")
    thread = blocked(server, 1.5)
    begun = time.monotonic()
    with server.wire() as wire:
        answer = wire.get("/").answer()
        assert answer.status == 504
        assert 0.25 < time.monotonic() - begun < 1
        until(lambda: wire.get("/").answer().status == 200)  # the connection goes on
    thread.join()
    assert server.count("calls.timed_out.request") == server.count("calls.failed_by.504") >= 2


def test_first_byte_leaves_streams_alone_and_request_cuts_them(start):
    server = start("--timeout-first-byte", "0.3")
    with server.wire() as wire:
        wire.get("/stream").head()
        time.sleep(0.5)
        wire.take(20)
    assert server.get("/sleep").status == 504
    server = start("--timeout-request", "0.3")
    with server.wire() as wire, pytest.raises(Cut):
        wire.get("/stream").answer()
    until(lambda: server.count("calls.failed_by.cut") == 1)


def test_a_client_may_shorten_the_deadline(start):
    server = start("--deadline-header", "X-Timeout")
    begun = time.monotonic()
    assert server.get("/sleep", "X-Timeout: 200ms").status == 504
    assert time.monotonic() - begun < 0.9
    assert server.get("/sleep", "X-Timeout: 20").status == 200
    until(lambda: server.count("calls.timed_out.deadline_header") == 1)


def test_health_checks_while_the_loop_is_blocked(start):
    server = start("--health-check-path", "/ready", "--liveness-path", "/alive")
    assert server.get("/ready").text == "ready\n"
    thread = blocked(server, 2.5)
    with server.wire() as wire:
        times, answers = [], []

        def stalled():
            begun = time.perf_counter()
            answers.append(wire.get("/ready").answer().status)
            times.append(time.perf_counter() - begun)
            return answers[-1] == 503

        until(stalled)
        assert answers[0] == 200  # a moment is no reason to send the requests elsewhere
        assert sorted(times)[len(times) // 2] < 0.005
        assert wire.get("/alive").answer().text == "all workers are stalled\n"
        thread.join()
        until(lambda: wire.get("/ready").answer().status == 200)
    assert server.count("calls.health_checks") >= 3


def test_drain_delay_says_so_before_it_stops(start):
    server = start("--health-check-path", "/ready", "--drain-delay", "0.7")
    with server.wire() as wire:
        assert wire.get("/ready").answer().status == 200
        server.kick()
        until(lambda: wire.get("/ready").answer().text == "draining\n")
        assert server.get("/").status == 200
    server.end(number=None)
