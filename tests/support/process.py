"""A server in a process of its own, as a person would start it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

from .wire import PATIENCE, Answer, Wire, until

TRANSPORT_LIMITS = {
    "goroutines": "while reading is paused this transport does not see that a peer has left",
}

SUPPORT = Path(__file__).resolve().parent
RUNNING = re.compile(r"running on (?:http://(\S+):(\d+)|unix socket (\S+)) ")


class Output:
    """The lines of a pipe, read by a thread."""

    def __init__(self, pipe) -> None:
        self.lines: list[str] = []
        self.ended = False
        self._pipe = pipe
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for line in self._pipe:
            with self._changed:
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def wait(self, text: str, count: int = 1) -> str:
        """Wait for a line with this text, and return it."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        with self._changed:
            self._changed.wait_for(lambda: len(found()) >= count or self.ended, PATIENCE)
            assert len(found()) >= count, f"no line has {text!r}:\n" + "\n".join(self.lines)
            return found()[count - 1]

    def all(self) -> str:
        """Everything, once the pipe has ended."""
        self._thread.join(PATIENCE)
        return "\n".join(self.lines)

    def close(self) -> None:
        self._thread.join(PATIENCE)
        self._pipe.close()


class Served:
    """`python -m spvn APP ...`, on port 0 unless the arguments name an address."""

    def __init__(
        self,
        *arguments: str,
        app: str = "support.app:app",
        transport: str = "poll",
        env: dict[str, str] | None = None,
        wait: bool = True,
        descriptors: int | None = None,
        stdout=subprocess.PIPE,
        pass_fds=(),
        cwd=None,
    ) -> None:
        self.folder = tempfile.mkdtemp(prefix="spvn-")
        self.control = os.path.join(self.folder, "control")
        command = [sys.executable, "-m", "spvn", app, "--app-dir", str(SUPPORT.parent)]
        command += ["--control-socket", self.control]
        if not any(flag.split("=")[0] in ("--bind", "--port", "--uds", "--fd") for flag in arguments):
            command += ["--port", "0"]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SPVN_", "UVICORN_"))}

        def limit() -> None:
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        self.process = subprocess.Popen(
            [*command, *arguments],
            env={**clean, "SPVN_TRANSPORT": transport, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdout=stdout,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
            cwd=cwd,
            preexec_fn=limit if descriptors is not None else None,
        )
        self.err = Output(self.process.stderr)
        self.out = Output(self.process.stdout) if stdout == subprocess.PIPE else None
        self.address: tuple[str, int] | str = ("", 0)
        self.checked = True
        if wait:
            try:
                line = self.err.wait("running on ")
                match = RUNNING.search(line)
                assert match, line
                self.address = match[3] or (match[1].strip("[]"), int(match[2]))
            except BaseException:
                self.kill()
                raise

    @property
    def port(self) -> int:
        assert not isinstance(self.address, str)
        return self.address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def wire(self, **options) -> Wire:
        return Wire(self.address, **options)

    def get(self, path: str, *fields: str, method: str = "GET") -> Answer:
        """One request on a connection of its own."""
        with self.wire() as wire:
            return wire.get(path, "Connection: close", *fields, method=method).answer(method)

    def noted(self, key: str, word: str) -> list[str]:
        """Wait until the app has noted a word."""
        notes = self.get(f"/notes?key={key}&has={word.replace(' ', '%20')}").body
        assert word in json.loads(notes), f"{word!r} was not noted: {json.loads(notes)}"
        return json.loads(notes)

    def notes(self, key: str) -> list[str]:
        return json.loads(self.get(f"/notes?key={key}").body)

    def say(self, key: str, word: str) -> None:
        self.get(f"/say?key={key}&word={word.replace(' ', '%20')}")

    def block(self, wire: Wire, seconds: float) -> Wire:
        """Have a call block the app's loop, and return once it does: what is sent from now on is not begun before."""
        name = key()
        wire.get(f"/block?key={name}&seconds={seconds}")
        assert self.out is not None
        self.out.wait(f"blocks {name}")
        return wire

    def stats(self) -> dict:
        """The counters, from the control socket."""
        with Wire(self.control) as wire:
            return json.loads(wire.get("/stats").answer().body)

    def count(self, name: str) -> int:
        value = self.stats()
        for part in name.split("."):
            value = value[part]
        return value

    def resident(self) -> int:
        """Resident memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the process has ended")

    def cpu(self) -> float:
        """Seconds of CPU time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def check(self) -> None:
        """Assert, at a quiet moment, that every call is accounted for and nothing went wrong inside."""

        def quiet() -> dict | None:
            stats = self.stats()
            return stats if stats["calls"]["in_flight"] == 0 and stats["calls"]["held"] == 0 else None

        stats = until(quiet, 5) or self.stats()
        calls, connections = stats["calls"], stats["connections"]
        ends = {name: calls[name] for name in ("answered", "refused", "failed", "left", "in_flight")}
        assert calls["arrived"] == sum(ends.values()), calls
        assert calls["in_flight"] == 0 and calls["held"] == 0 and calls["waiting"] == 0, calls
        assert calls["abandoned"] == 0, calls
        assert calls["misplaced"] == 0, calls
        assert connections["accepted"] == connections["closed"] + connections["open"], connections
        assert stats["loops"]["panics"] == 0, self.err.lines
        assert stats["link"]["violations"] == 0, self.err.lines

    def kick(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self, number: int | None = signal.SIGTERM, code: int = 0) -> str:
        """Stop it, wait, and return what it said on standard error."""
        if number is not None and self.process.poll() is None:
            self.process.send_signal(number)
        try:
            ended = self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        said = self.err.all()
        self.kill()
        assert ended == code, f"exit code {ended}, not {code}:\n{said}"
        return said

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.err.close()
        if self.out is not None:
            self.out.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> int:
    """A port that nobody has at this moment."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def key() -> str:
    """A name that no other test uses."""
    return uuid.uuid4().hex[:12]
