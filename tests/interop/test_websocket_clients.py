"""WebSocket apps of the frameworks, asked by real clients: websockets, aiohttp, python-socketio, and a browser."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from urllib.parse import unquote

import pytest

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples"
APPS = {"starlette": "starlette", "fastapi": "fastapi", "channels": "channels"}
LIMIT = 20


class Served:
    """`spvn APP` on a socket that was there before it."""

    def __init__(self, app, *options, folder=HERE):
        self.log = tempfile.TemporaryFile()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(128)
            self.port = listener.getsockname()[1]
            command = [sys.executable, "-m", "spvn", app, "--app-dir", str(folder)]
            self.process = subprocess.Popen(
                [*command, "--fd", str(listener.fileno()), *options],
                pass_fds=[listener.fileno()],
                stdout=self.log,
                stderr=self.log,
            )

    def output(self):
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=30)
        finally:
            self.process.kill()
            self.process.wait()
            output = self.output()
            self.log.close()
        assert code == 0, output
        # Channels raises for a path that it does not know.
        assert output.count("Traceback") == output.count("ValueError: No route found"), output


def need(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not there: pip install {package}")


def made(name, *options):
    """The app that a function of websocket_apps.py makes."""
    return Served(f"websocket_apps:{name}", "--factory", *options)


@pytest.fixture(scope="module", params=APPS)
def served(request):
    need(APPS[request.param])
    server = made(request.param)
    yield server
    server.stop()


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, LIMIT))


MESSAGES = ["", "hello", "grüße " * 20_000, b"", b"\x00\xff", bytes(range(256)) * 2000]


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_websockets(served, compression):
    need("websockets")
    import websockets

    async def talk():
        url = f"ws://127.0.0.1:{served.port}/ws"
        options = {"compression": compression, "subprotocols": ["chat"], "max_size": None}
        async with websockets.connect(url, **options) as client:
            assert client.subprotocol == "chat"
            assert bool(client.protocol.extensions) == (compression is not None)
            for message in MESSAGES:
                await client.send(message)
                assert await client.recv() == message
            await client.send(["in ", "frag", "ments"])
            assert await client.recv() == "in fragments"
            await (await client.ping())
            for i in range(200):
                await client.send(str(i))
            assert [await client.recv() for _ in range(200)] == [str(i) for i in range(200)]
            await client.send("bye")
            with pytest.raises(websockets.ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (4000, "as you like")
        async with websockets.connect(url) as client:
            await client.close(1001, "enough")
            assert client.close_code == 1001

    run(talk())


@pytest.mark.parametrize("compress", [0, 15])
def test_aiohttp(served, compress):
    need("aiohttp")
    import aiohttp

    async def talk():
        url = f"http://127.0.0.1:{served.port}/ws"
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(url, compress=compress, max_msg_size=0, protocols=["chat"]) as client:
                assert client.protocol == "chat"
                for message in MESSAGES:
                    if isinstance(message, str):
                        await client.send_str(message)
                    else:
                        await client.send_bytes(message)
                    assert (await client.receive()).data == message
                await client.send_str("bye")
                closed = await client.receive()
                assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, 4000, "as you like")
            async with session.ws_connect(url) as client:
                await client.close(code=1000)
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"http://127.0.0.1:{served.port}/none")
            assert refused.value.status in (403, 404, 500)  # the framework's word

    run(talk())


@pytest.fixture(scope="session")
def gorilla_client(tmp_path_factory):
    """gorilla/websocket's own client, in a module of its own (the core's go.mod replaces it by less)."""
    program = tmp_path_factory.mktemp("gorilla") / "client"
    path = os.pathsep.join([os.environ.get("PATH", ""), sysconfig.get_path("scripts")])
    go = shutil.which("go", path=path)
    if go is None:
        pytest.skip("no go")
    env = {**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
    subprocess.run([go, "build", "-o", program, "."], cwd=HERE / "gorilla", env=env, check=True, timeout=100)
    return program


def test_gorilla(gorilla_client):
    need("starlette")
    server = made("starlette", "--ws-ping-interval", "0.5")
    try:
        ran = subprocess.run(
            [gorilla_client, f"ws://127.0.0.1:{server.port}"], capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, ran.stderr
    finally:
        server.stop()


@pytest.mark.parametrize("transports", [["websocket"], ["polling", "websocket"]])
def test_socketio(transports):
    need("socketio")
    need("aiohttp")
    import socketio

    async def talk(port):
        client = socketio.AsyncClient(handle_sigint=False)
        greeted = asyncio.get_running_loop().create_future()
        client.on("greeting", greeted.set_result)
        for _ in range(100):
            try:
                await client.connect(f"http://127.0.0.1:{port}", transports=transports)
                break
            except socketio.exceptions.ConnectionError:
                await asyncio.sleep(0.05)
        assert await client.call("hello", "you") == "heard"
        assert await greeted == {"to": "you"}
        assert client.transport() == "websocket"
        await client.disconnect()

    server = made("socketio")
    try:
        run(talk(server.port))
    finally:
        server.stop()


def test_the_chat_example():
    need("websockets")
    import websockets

    async def talk(url):
        async with websockets.connect(url, subprotocols=["chat"]) as one:
            async with websockets.connect(url, subprotocols=["chat"]) as two:
                await one.send("hello")
                assert await one.recv() == await two.recv() == "hello"
            await one.send("alone")
            assert await one.recv() == "alone"
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(url)
        assert refused.value.response.status_code == 403

    server = Served("chat:app", folder=EXAMPLES)
    try:
        run(talk(f"ws://127.0.0.1:{server.port}/chat"))
    finally:
        server.stop()


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def test_browser():
    """A page opens a connection, talks, is closed; its next one is closed by a rolling restart, and it comes again."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no browser: make tools, or apt install chromium")
    need("starlette")
    server = made("test_page", "--workers", "1")
    profile = tempfile.mkdtemp(prefix="spvn-browser-")
    chrome = None

    def said():
        return [unquote(word) for word in re.findall(r'"GET /said\?(\S+) HTTP', server.output())]

    def wait_for(word):
        deadline = time.monotonic() + LIMIT
        while word not in said():
            assert time.monotonic() < deadline and chrome.poll() is None, (word, said(), server.output())
            time.sleep(0.05)

    try:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += [f"--user-data-dir={profile}", "--remote-debugging-port=0", f"http://127.0.0.1:{server.port}/"]
        chrome = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("worker")
        words = said()
        assert words[0].startswith("open chat permessage-deflate"), words
        assert words[1:] == ["hello", "bytes 0,255", "large true", "closed 4000 as you like true", "worker"]
        server.process.send_signal(signal.SIGHUP)
        wait_for("another worker")
        assert said()[6] == "closed 1012", said()
    finally:
        if chrome is not None:
            chrome.kill()
            chrome.wait()
        shutil.rmtree(profile, ignore_errors=True)
        server.stop()
