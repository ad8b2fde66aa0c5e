"""Clients that leave: the app hears of it at once, wherever its call is."""

from __future__ import annotations

import time

import pytest
from support.process import TRANSPORT_LIMITS, key
from support.wire import until

LEAVING = ["close", "reset"]


@pytest.mark.parametrize("how", LEAVING)
def test_while_the_app_waits(patient, name, how):
    with patient.wire() as wire:
        wire.get(f"/wait?key={name}")
        patient.noted(name, "begun")
        began = time.monotonic()
        getattr(wire, how)()
        assert "send raised OSError" in patient.noted(name, "send raised OSError")
        assert "disconnect" in patient.notes(name)
        assert time.monotonic() - began < 1


@pytest.mark.parametrize("how", LEAVING)
def test_while_the_app_computes(patient, name, how):
    """It does not receive; what it sends raises."""
    left = patient.count("calls.left")
    with patient.wire() as wire:
        wire.get(f"/compute?key={name}")
        patient.noted(name, "begun")
        getattr(wire, how)()
        assert until(lambda: patient.count("calls.left") == left + 1), "the server has not seen it"
        patient.say(name, "go on")
        assert "answered" not in patient.noted(name, "send raised OSError")


@pytest.mark.parametrize("how", LEAVING)
def test_while_a_body_is_unread(patient, name, transport, how):
    """The app does not receive, reading is paused, and the client goes."""
    if transport in TRANSPORT_LIMITS:
        pytest.skip(TRANSPORT_LIMITS[transport])
    left = patient.count("calls.left")
    with patient.wire() as wire:
        wire.send(f"POST /compute?key={name}&read HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n".encode())
        patient.noted(name, "begun")
        wire.send(b"x" * 150_000)  # more than the server takes, and no more than the kernel does
        assert until(lambda: patient.count("connections.reads_paused"))
        getattr(wire, how)()
        assert until(lambda: patient.count("calls.left") == left + 1), "the server has not seen it"
        patient.say(name, "go on")
        patient.noted(name, "disconnect")


def test_in_the_middle_of_a_body(patient, name):
    with patient.wire() as wire:
        wire.send(f"POST /upload?key={name} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc".encode())
        patient.noted(name, "first")
        wire.close()
        patient.noted(name, "disconnect")


def test_in_the_middle_of_a_chunk(patient, name):
    with patient.wire() as wire:
        wire.send(
            f"POST /upload?key={name} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab".encode()
        )
        patient.noted(name, "first")
        wire.close()
        patient.noted(name, "disconnect")


@pytest.mark.parametrize("how", LEAVING)
def test_in_the_middle_of_a_stream(patient, name, how):
    with patient.wire() as wire:
        wire.get(f"/flood?key={name}")
        wire.head()
        wire.take(1_000_000)
        getattr(wire, how)()
        assert "send raised OSError" in patient.noted(name, "stopped")


def test_before_its_call_has_begun(patient):
    """The loop is blocked; the calls behind it are dropped without being run."""
    blocker, ours = patient.wire(), patient.wire()
    with blocker, ours:
        left = patient.count("calls.left")
        patient.block(blocker, 1.5)
        begun = key()
        ours.get(f"/slow?key={begun}")
        # Seen in the counters, since the app cannot say so.
        assert until(lambda: patient.count("calls.in_flight") == 2)
        ours.close()
        assert until(lambda: patient.count("calls.left") == left + 1)
        assert blocker.answer().body == b"blocked"
        assert patient.notes(begun) == []


def test_with_requests_behind_it(patient, name):
    """Pipelined ones that were not begun are not counted as calls."""
    with patient.wire() as wire:
        wire.get(f"/compute?key={name}")
        patient.noted(name, "begun")
        wire.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 10)
        wire.reset()
        patient.say(name, "go on")
        patient.noted(name, "goes on")


def test_many_at_once(patient):
    """A hundred clients in every state leave together."""
    wires = [patient.wire() for _ in range(100)]
    names = [key() for _ in wires]
    for number, (wire, one) in enumerate(zip(wires, names)):
        wire.get([f"/wait?key={one}", f"/flood?key={one}", "/", f"/slow?seconds=0.1&key={one}"][number % 4])
    for number, wire in enumerate(wires):
        # A FIN right behind a request is a half-close to the server, and /wait never writes to find out.
        (wire.reset if number % 3 or number % 4 == 0 else wire.close)()
    assert patient.get("/").body == b"hello"
