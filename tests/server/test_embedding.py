"""Servers inside other programs: in a loop that runs already, in threads, several of them, in pytest, with httpx."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import os
import subprocess
import sys
import textwrap
import threading
import time

import httpx
import pytest
from support.app import app
from support.process import SUPPORT
from support.wire import Wire, until

import spvn
from spvn import testing


@pytest.fixture(autouse=True)
def environment(monkeypatch, transport):
    monkeypatch.setenv("SPVN_TRANSPORT", transport)


def test_inside_a_running_loop():
    """The client is on the same loop as the app."""

    async def main():
        server = spvn.Server(spvn.Config(app, port=0, log_config=None, access_log=False))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.001)
        async with httpx.AsyncClient(base_url=server.url) as client:
            answers = await asyncio.gather(*(client.get("/slow?seconds=0.05") for _ in range(20)))
            assert {answer.text for answer in answers} == {"slow"}
            assert (await client.post("/echo", content=b"x" * 100_000)).content == b"x" * 100_000
        stats = server.stats()
        server.should_exit = True
        await asyncio.wait_for(serving, 10)
        testing.check_stats(stats)
        assert server.stats()["calls"]["in_flight"] == 0

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_mapping_of_the_link():
    """Both of its sides are in this process: one mapping serves them, and it goes with the later of the two."""

    def mappings():
        with open("/proc/self/maps", encoding="utf-8") as maps:
            return sum("memfd:spvn-link" in line for line in maps)

    before = mappings()
    for _ in range(3):
        with testing.serve(app) as server:
            assert httpx.get(server.url).text == "hello"
            assert mappings() == before + 1
        assert until(lambda: mappings() == before)


def test_two_servers_on_one_loop():
    async def main():
        servers = [spvn.Server(spvn.Config(app, port=0, log_config=None, access_log=False)) for _ in range(2)]
        serving = [asyncio.create_task(server.serve()) for server in servers]
        while not all(server.started for server in servers):
            await asyncio.sleep(0.001)
        assert servers[0].port != servers[1].port
        async with httpx.AsyncClient() as client:
            for server in servers * 2:
                assert (await client.get(server.url)).text == "hello"
        servers[0].should_exit = True
        await asyncio.wait_for(serving[0], 10)
        async with httpx.AsyncClient() as client:
            assert (await client.get(servers[1].url)).text == "hello"
        servers[1].should_exit = True
        await asyncio.wait_for(serving[1], 10)

    asyncio.run(main())


def test_many_servers_in_threads():
    with testing.serve(app):  # the runtime of the core keeps a few for itself, once
        pass
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(2):
        servers = [testing.start(app) for _ in range(3)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda server: httpx.get(server.url).text, servers * 5))
        assert set(answers) == {"hello"}
        for server in servers:
            server.stop()
            server.check()
    # Nothing is left of them: descriptors and threads go (the loops' own threads end a moment later).
    assert until(lambda: len(set(os.listdir("/proc/self/fd")) - before) <= 2)


def test_a_call_keeps_the_server_until_it_has_ended():
    with testing.serve(app) as server:
        with Wire(("127.0.0.1", server.port)) as wire:
            wire.get("/slow?seconds=0.3")
            assert until(lambda: server.stats()["calls"]["in_flight"] == 1)
            server.server.should_exit = True
            assert wire.answer().body == b"slow"


def test_cancelling_a_server_ends_all_that_is_its(transport):
    """As asyncio.TaskGroup does when a task beside it fails."""
    begun, ended = [], []

    async def careful(scope, receive, send):
        try:
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
            else:
                begun.append(scope["type"])
            await asyncio.sleep(60)
        finally:
            ended.append(scope["type"])

    async def main():
        server = spvn.Server(spvn.Config(careful, port=0, log_config=None, access_log=False))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.001)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while not begun:
            await asyncio.sleep(0.001)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(serving, 5)
        assert sorted(ended) == ["http", "lifespan"]
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await writer.wait_closed()
        # The other transport writes by threads of its own, which the end of a server does not wait for.
        if answer or transport == "poll":
            assert answer.startswith((b"HTTP/1.1 500 ", b"HTTP/1.1 503 ")), answer
        stats = server.stats()
        testing.check_stats(stats)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_force_exit_from_another_thread():
    server = testing.start(app)
    with Wire(("127.0.0.1", server.port)) as wire:
        wire.get("/slow?seconds=30")
        assert until(lambda: server.stats()["calls"]["in_flight"] == 1)
        began = time.monotonic()
        server.server.force_exit = True
        server.stop()
        assert time.monotonic() - began < 3


def test_an_exception_in_the_block_comes_out():
    with pytest.raises(ZeroDivisionError), testing.serve(app):
        raise ZeroDivisionError


def test_the_fixture(spvn_server):
    first, second = spvn_server(app), spvn_server("support.app:app")
    assert httpx.get(first.url).text == httpx.get(second.url).text == "hello"
    assert first.port != second.port


def test_the_plugin_is_there_without_an_import(tmp_path):
    test = tmp_path / "test_it.py"
    test.write_text(
        textwrap.dedent(
            """
            import http.client

            async def app(scope, receive, send):
                assert scope["type"] == "http"
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"from the plugin"})

            def test_it(spvn_server):
                server = spvn_server(app)
                connection = http.client.HTTPConnection("127.0.0.1", server.port)
                connection.request("GET", "/")
                assert connection.getresponse().read() == b"from the plugin"
                connection.close()
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", str(test)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_calls_are_tasks_with_contexts_of_their_own():
    seen = contextvars.ContextVar("seen", default=0)
    tasks = set()

    async def counting(scope, receive, send):
        assert scope["type"] == "http"
        task = asyncio.current_task()
        assert task is not None
        tasks.add(id(task))
        assert seen.get() == 0
        seen.set(1)
        async with asyncio.TaskGroup() if sys.version_info >= (3, 11) else nothing():
            await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % seen.get()})

    with testing.serve(counting, lifespan="off") as server:
        for _ in range(3):
            assert httpx.get(server.url).text == "1"


class nothing:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        return None


def test_a_program_that_serves_and_goes_on(tmp_path):
    """spvn.run returns after a signal, and what comes behind it runs."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import os, signal, sys, threading
            sys.path.insert(0, sys.argv[1])
            import spvn
            from support.app import app
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
            spvn.run(app, port=0)
            print("and goes on")
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(program), str(SUPPORT.parent)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert "and goes on" in done.stdout


def test_threads_do_not_block_each_other():
    """A server whose app blocks does not stop another's core."""
    blocked = threading.Event()

    async def blocks(scope, receive, send):
        blocked.set()
        time.sleep(0.4)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"late"})

    with testing.serve(blocks, lifespan="off") as slow, testing.serve(app) as quick:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            late = pool.submit(httpx.get, slow.url)
            assert blocked.wait(10)
            assert httpx.get(quick.url).text == "hello"
            assert not late.done()
            assert late.result().text == "late"
