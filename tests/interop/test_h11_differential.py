"""The HTTP/1.1 parser of the core against h11, on generated requests.

What the core takes, h11 must take too and understand in the same way; what only the core refuses must be for one of
the reasons listed here.
"""

from __future__ import annotations

import base64
import json
import random
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import h11
import pytest

ROOT = Path(__file__).resolve().parents[2]
COUNT = 5000

# What the core refuses and h11 takes, by the sentence that the client reads.
STRICTER = {
    "A line does not end in CRLF.": "h11 takes a bare LF for a line end (RFC 9112 2.2 allows it)",
    "A field line starts with white space (line folding is obsolete).": "h11 unfolds (RFC 9112 5.2 allows either)",
    "The request-target has a form or character that is not allowed.": "h11 takes any visible characters as a target",
    "The path has a percent sign without two hexadecimal digits.": "h11 leaves the target to its user",
    "The host in the request-target is not valid.": "h11 leaves the target to its user",
    "The Host field is not a valid host.": "h11 leaves the value of Host to its user",
    "The head has a control character.": "h11 takes all but NUL and white space (RFC 9110 5.5 allows it)",
    "There is more than one Content-Length.": "h11 takes equal ones for one (RFC 9110 8.6 allows either)",
    "The Content-Length is not a number of bytes.": "h11 takes a list of equal ones (RFC 9110 8.6 allows either)",
    "Content-Length and Transfer-Encoding exclude each other.": "h11 drops the former (RFC 9112 6.3 allows either)",
    "HTTP/1.0 has no Transfer-Encoding.": "h11 reads it all the same (RFC 9112 6.1: faulty framing)",
    "The only expectation understood here is 100-continue.": "h11 leaves other expectations to its user",
    "CONNECT is not for this server: it is not a proxy.": "h11 leaves CONNECT to its user",
    "The method is longer than any that is known here.": "h11 takes methods of any length",
    "This server speaks HTTP/1.1 and HTTP/1.0.": "h11 leaves versions to its user",
    "A chunk does not start with its size in hexadecimal digits.": "h11 takes white space behind a chunk size",
    "A chunk size has too many digits.": "h11 takes up to 20",
    "A chunk extension has a character that is not allowed.": "h11 hardly looks into chunk extensions",
    "A trailer field is not NAME: VALUE CRLF.": "h11 takes bare LF, folding and control characters here too",
}

MISTAKES = {
    "method": ["", "G T", "G\0T", "G(T", "CONNECT", "X" * 70],
    "target": [
        "a",
        "?a",
        "",
        "/a b",
        "/%zz",
        "/a#b",
        "/\x7f",
        "/\xe4",
        "http://",
        "http://u@b/",
        "b:80",
        "ftp://a/",
        "*a",
    ],
    "version": ["HTTP/0.9", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", "HTTP/1", "HTTP/11.1", "HTTP/1.10", ""],
    "host": ["", " a b", " [::1]:80", " a:99999", " a/b", " \xe4", " u@a"],
    "length": ["", " +5", " -1", " 5, 5", " 0x5", " 1_0", " 99999999999999999999", " 5 "],
    "coding": [
        "Chunked",
        "gzip, chunked",
        "chunked, gzip",
        "identity",
        "chunked,chunked",
        "",
        "xchunked",
        "chunked;a=b",
    ],
    "name": ["X A", "X-A ", "", "\xe4", "(", "X\0"],
    "value": ["a\0b", "a\rb", "a\nb", "a\x01b", "a\x7fb", "\xff", " \t a \t", "a\r\n b", "a\r\n\tb", ""],
    "line": ["no colon", " folded: a", "\tfolded", "Host: b"],
    "size": ["", "+1", "0x1", " 1", "g", "f" * 17, "-1", "0" * 18 + "1"],
    "extension": [";a=b", " ;a", " ", "\t", ";\0", ";a\rb", ';"\xff"'],
    "trailer": ["A: b\r\n", "A: b\n", "no colon\r\n", " a: b\r\n", "A:\0\r\n"],
}


class Generator:
    """Requests that are mostly right, with a mistake here and there."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def rarely(self, n: int, right: str, mistakes: str) -> str:
        return self.random.choice(MISTAKES[mistakes]) if self.random.randrange(n) == 0 else right

    def end(self) -> str:
        return self.random.choice(["\n", "\r", "\r\r\n"]) if self.random.randrange(150) == 0 else "\r\n"

    def request(self) -> bytes:
        pick, rarely, end = self.random.choice, self.rarely, self.end
        method = rarely(20, pick(["GET", "POST", "PUT", "OPTIONS", "HEAD", "M-SEARCH"]), "method")
        target = rarely(8, pick(["/", "/a?b=c", "/%41%20b", "//a/./b"]), "target")
        version = rarely(15, pick(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]), "version")
        parts = [method, " ", target, " ", version, end()]
        if self.random.randrange(40):
            parts += ["Host:", rarely(15, " a.example", "host"), end()]
        length, chunked = 0, False
        for _ in range(self.random.randrange(5)):
            kind = self.random.randrange(7)
            if kind == 0:
                length = self.random.randrange(12)
                parts += ["Content-Length:", rarely(5, f" {length}", "length")]
            elif kind == 1:
                chunked = True
                parts += ["Transfer-Encoding: ", rarely(5, "chunked", "coding")]
            elif kind == 2:
                parts += ["Connection: ", pick(["close", "keep-alive", "a, close"])]
            elif kind == 3:
                parts += [rarely(6, "X-A", "name"), ":"]
            elif kind == 4:
                parts += ["X-B: ", rarely(6, "value", "value")]
            elif kind == 5:
                parts += ["Expect: ", pick(["100-continue", "100-continue", "100-continue", "x"])]
            else:
                parts += [rarely(8, "X-C: d", "line")]
            parts.append(end())
        parts.append(end())
        if chunked:
            for _ in range(self.random.randrange(4)):
                data = "d" * self.random.randrange(1, 21)
                extension = rarely(8, "", "extension")
                parts += [rarely(10, f"{len(data):x}", "size"), extension, end(), data, end()]
            parts += ["0", rarely(10, "", "extension"), end(), rarely(5, "", "trailer"), end()]
        elif length:
            parts.append("x" * length)
        if self.random.randrange(3) == 0:
            parts.append("GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        whole = bytearray("".join(parts).encode("latin-1"))
        if self.random.randrange(10) == 0:  # any byte may be any other
            whole[self.random.randrange(len(whole))] = self.random.randrange(256)
        return bytes(whole)


def by_h11(data: bytes) -> tuple[list[Any], str, bool]:
    """The complete requests that h11 reads, why it refuses what follows, and whether it began one more."""
    connection = h11.Connection(h11.SERVER)
    requests: list[Any] = []
    request: Any = None
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request = [event.method, event.target, [list(field) for field in event.headers], b""]
            elif isinstance(event, h11.Data):
                request[3] += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                requests.append(request)
                request = None
                connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return requests, "", False
                connection.start_next_cycle()
            else:
                return requests, "", request is not None
    except h11.RemoteProtocolError as exc:
        return requests, str(exc), False


def by_core(command: Path, inputs: list[bytes]) -> list[Any]:
    """The same of the core: complete requests and the reason of a refusal."""
    stdin = b"".join(struct.pack(">I", len(data)) + data for data in inputs)
    done = subprocess.run([str(command)], input=stdin, stdout=subprocess.PIPE, check=True, timeout=60)
    results = []
    decode = base64.b64decode

    def field(name: str, value: str) -> list[bytes]:
        lower = decode(name) == b"transfer-encoding"  # as h11 has it
        return [decode(name), decode(value).lower() if lower else decode(value)]

    for line in done.stdout.splitlines():
        result = json.loads(line)
        requests = [
            [decode(r["method"]), decode(r["target"]), [field(n, v) for n, v in r["fields"]], decode(r["body"])]
            for r in result["requests"]
            if r["complete"]
        ]
        results.append((requests, result["reason"]))
    return results


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = shutil.which("go")
    if go is None:
        pytest.skip("needs the Go toolchain")
    path = tmp_path_factory.mktemp("parsecmd") / "parsecmd"
    subprocess.run([go, "build", "-o", str(path), "./gosrc/http1/internal/parsecmd"], cwd=ROOT, check=True)
    return path


def test_against_h11(command: Path) -> None:
    generator = Generator(1)
    inputs = [generator.request() for _ in range(COUNT)]
    results = by_core(command, inputs)
    assert len(results) == COUNT
    taken = 0
    seen = set()
    for data, (ours, reason) in zip(inputs, results):
        theirs, problem, begun = by_h11(data)
        taken += len(ours)
        if reason and (begun or len(theirs) > len(ours)):
            assert reason in STRICTER, f"{data!r}: only the core refuses it: {reason}"
            seen.add(reason)
            assert ours == theirs[: len(ours)], data
        elif problem:
            assert reason, f"{data!r}: only h11 refuses it: {problem}"
            assert ours == theirs, data
        elif len(ours) > len(theirs):
            assert b"HTTP/1.0" in data, data  # whose keep-alive h11 does not know
            assert theirs == ours[: len(theirs)], data
        else:
            assert ours == theirs, data
    assert taken > COUNT / 4, "the generator makes too many mistakes"
    assert seen == set(STRICTER), f"h11 refuses these too: {set(STRICTER) - seen}"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nabGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nT: u\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: close\r\nX-A: \t b c \r\n\r\n",
    ],
)
def test_taken_by_both(command: Path, data: bytes) -> None:
    [(ours, reason)] = by_core(command, [data])
    assert not reason
    assert ours == by_h11(data)[0]
    assert ours
