"""A crowd of connections in a process of its own, since it takes as many descriptors as the server has.

`python crowd.py PORT COUNT RATE` opens COUNT connections, says "full", and opens RATE more a second. Two of three ask
once and never again, the third says nothing; all stay until the server closes them. For each line on standard input
it says what became of them as JSON, and from the first line on it opens no more. It ends with its input.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.process import Output

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
UNANSWERED = 100  # more are not opened until some of these are answered: the listener's backlog has its bounds
BIND_ADDRESS_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT


class Connections:
    def __init__(self, port: int) -> None:
        self.port = port
        self.epoll = select.epoll()
        self.open: dict[int, socket.socket] = {}
        self.unanswered: set[int] = set()
        self.counts = dict.fromkeys(("opened", "asked", "answered", "ended", "lost", "other"), 0)

    def add(self) -> None:
        n = self.counts["opened"]
        client = socket.socket()
        client.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        client.bind((f"127.0.0.{2 + n % 8}", 0))  # one address has not that many ports
        client.connect(("127.0.0.1", self.port))
        self.counts["opened"] += 1
        if n % 3:
            client.send(REQUEST)
            self.unanswered.add(client.fileno())
            self.counts["asked"] += 1
        self.open[client.fileno()] = client
        self.epoll.register(client.fileno(), select.EPOLLIN | select.EPOLLRDHUP)

    def event(self, fd: int) -> None:
        try:
            data = self.open[fd].recv(4096)
        except ConnectionError:
            data = b""
        if data:
            if fd in self.unanswered:
                self.unanswered.discard(fd)
                self.counts["answered" if data.startswith(b"HTTP/1.1 200 ") else "other"] += 1
            return  # else it is a 408, of which the end follows
        self.counts["ended"] += 1
        self.counts["lost"] += fd in self.unanswered
        self.unanswered.discard(fd)
        self.open.pop(fd).close()

    def look(self, seconds: float) -> bool:
        """Take what came. True: there is a line on standard input, or its end."""
        asked = False
        for fd, _ in self.epoll.poll(seconds):
            if fd == sys.stdin.fileno():
                asked = True
            else:
                self.event(fd)
        return asked


def main(port: int, count: int, rate: float) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Connections(port)
    for _ in range(count):
        crowd.add()
        crowd.look(0)
        while len(crowd.unanswered) >= UNANSWERED:
            crowd.look(1)
    print("full", flush=True)
    crowd.epoll.register(sys.stdin.fileno(), select.EPOLLIN)
    due = time.monotonic()
    while not crowd.look(max(0, due - time.monotonic())):
        if time.monotonic() >= due and len(crowd.unanswered) < UNANSWERED:
            crowd.add()
            due += 1 / rate
    while sys.stdin.readline():
        while crowd.unanswered:
            crowd.look(0.01)
        while crowd.epoll.poll(0) and not crowd.look(0):
            pass
        print(json.dumps(crowd.counts), flush=True)


class Crowd:
    """That process, as a test sees it."""

    def __init__(self, port: int, count: int, rate: float) -> None:
        from support.process import Output

        command = [sys.executable, __file__, str(port), str(count), str(rate)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.out: Output = Output(self.process.stdout)
        self._said = 0

    @property
    def full(self) -> bool:
        return bool(self.out.lines) or self.out.ended

    def counts(self) -> dict[str, int]:
        """What became of them; no more come after the first time."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        self._said += 1
        return json.loads(self.out.wait("{", self._said))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.out.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
