"""More than the app can do, and not more than clients will wait for: who is answered, and when.

The figures are of `make perf-overload`; here the bounds leave room for a busy machine.
"""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from .clients import Crowd, closed_loop, open_loop

SECONDS = 2
CAPACITY = 200  # calls of 5 ms a second


async def together(*loops):
    await asyncio.gather(*loops)


@pytest.mark.parametrize(
    ("path", "options"),
    [("/early", ()), ("/late", ()), ("/late", ("--io-threads", "2"))],
    ids=["early", "late", "two poll loops"],
)
def test_goodput_and_priority(start, path, options):
    server = start("--priority-path", "/light", *options)
    heavy, light = Crowd(), Crowd()
    asyncio.run(
        together(
            open_loop(server.address, path, 3 * CAPACITY, SECONDS, 1, heavy),
            open_loop(server.address, "/light", 20, SECONDS, 5, light),
        )
    )
    assert not heavy.failed and not light.failed
    # Some are still patient when the load has ended: 1.3 times as many on a machine of its own.
    assert heavy.ok >= CAPACITY * SECONDS, f"{heavy.ok} of {CAPACITY * SECONDS} were answered in time"
    assert light.ok == 20 * SECONDS and light.median < 0.05, f"{light.ok} light calls, median {light.median:.3f} s"
    assert server.count("calls.left") >= heavy.gave_up * 0.9
    after = Crowd()
    asyncio.run(open_loop(server.address, "/", 50, 0.5, 5, after))
    assert after.ok == 25 and after.median < 0.1


# Paths, numbers of clients, and how often each of them asks at the least; all at once.
PATIENT = [
    *[("/late", 64, 1), ("/early", 300, 1), ("/", 1000, 1)],
    *[pytest.param("/early", clients, rounds, marks=pytest.mark.soak) for clients, rounds in ((64, 100), (512, 10))],
    pytest.param("/late", 512, 10, marks=pytest.mark.soak),
    pytest.param("/", 5000, 3, marks=pytest.mark.soak),
    pytest.param("/sleep", 10_000, 3, marks=pytest.mark.soak),
]


@pytest.mark.parametrize(("path", "clients", "rounds"), PATIENT)
def test_patient_clients_are_all_answered(start, descriptors, path, clients, rounds):
    if descriptors < clients + 1000:
        pytest.skip(f"only {descriptors} descriptors: ulimit -n {clients + 1000}")
    server = start()
    crowd = Crowd()
    asyncio.run(closed_loop(server.address, path, clients, 1, crowd, rounds))
    assert not crowd.failed and list(crowd.times) == [200]
    assert crowd.ok >= clients * rounds
    assert server.count("calls.refused") == server.count("calls.left") == 0


@pytest.mark.soak
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_blocking_handler_at_a_third_of_what_it_can_do(start, workers):
    """Two seconds of every six, beside light calls: they wait, and nobody is refused."""
    server = start(*workers)
    heavy, light = Crowd(), Crowd()

    async def both():
        await asyncio.gather(
            open_loop(server.address, "/block2", 1 / 6 * (2 if workers else 1), 36, 30, heavy),
            open_loop(server.address, "/", 30, 36, 30, light),
        )

    asyncio.run(both())
    assert not heavy.failed and not light.failed
    assert heavy.ok == (12 if workers else 6) and light.ok == 30 * 36
    assert server.count("calls.refused") == server.count("calls.left") == 0


def test_waiting_is_no_overload(start):
    server = start()
    crowd = Crowd()
    begun = time.monotonic()
    asyncio.run(open_loop(server.address, "/sleep", 2000, 1, 30, crowd))
    assert not crowd.failed and crowd.ok == 2000, crowd.times.keys()
    assert time.monotonic() - begun < 8


def test_a_late_moment_beside_many_long_polls(start):
    server = start()
    polls = [server.wire().get("/poll") for _ in range(500)]
    while server.count("calls.held") < 500:
        time.sleep(0.01)
    time.sleep(1.2)  # until they are old
    assert server.get("/block0.2").status == 200
    begun = time.monotonic()
    for _ in range(20):
        assert server.get("/").status == 200
    assert time.monotonic() - begun < 2
    server.kill()  # the polls would go on for half a minute
    for poll in polls:
        poll.close()


def test_a_blocking_handler_refuses_nobody(start):
    server = start("--timeout-queue", "1")
    answers = []

    def ask(path):
        answers.append(server.get(path).status)

    threads = [threading.Thread(target=ask, args=("/block2",))]
    threads[0].start()
    time.sleep(0.2)
    threads += [threading.Thread(target=ask, args=("/",)) for _ in range(20)]
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    # They waited for longer than --timeout-queue, whose clock stands still while all workers are stalled.
    assert answers == [200] * 21


def test_refused_with_a_reason_and_the_connection_goes_on(start):
    server = start("--limit-concurrency", "1")
    with server.wire() as busy, server.wire() as other:
        busy.get("/sleep")
        while server.count("calls.in_flight") < 1:
            time.sleep(0.01)
        for _ in range(20):
            refused = other.get("/").answer()
            assert refused.status == 503 and refused.field("retry-after") == "1"
        assert busy.answer().status == 200
        assert other.get("/").answer().status == 200
    assert server.count("calls.refused_by.limit_concurrency") == 20
    lines = [line for line in server.err.lines if "limit_concurrency" in line]
    assert len(lines) == 1, lines
