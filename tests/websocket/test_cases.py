"""The cases of the Autobahn testsuite by their numbers, with its strict verdict, and without the suite.

Each is what a client sends to an echo, what must come back, and how the connection ends. "clean" says that the client
closes once it has everything, with 1000; a number is the code with which the server closes.
"""

from __future__ import annotations

import struct
import zlib

import pytest
from ws_client import BINARY, CLOSE, FIN, MORE, PING, PONG, RSV1, TEXT, Client, closing, frame, text

HELLO = "Hello, world!"
KOSME = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
SURROGATE = KOSME + b"\xed\xa0\x80edited"


def pong(payload=b""):
    return (FIN | PONG, payload)


def said(payload):
    return (FIN | TEXT, payload if isinstance(payload, bytes) else payload.encode())


def fragments(*parts, opcode=TEXT):
    frames = [frame(opcode if i == 0 else MORE, part) for i, part in enumerate(parts[:-1])]
    return b"".join([*frames, frame(FIN | (MORE if frames else opcode), parts[-1])])


def octets(payload):
    return fragments(*(payload[i : i + 1] for i in range(len(payload))))


CASES = {
    # 2 Pings and pongs
    "2.1": (frame(FIN | PING), [pong()], "clean"),
    "2.2": (frame(FIN | PING, b"Hello"), [pong(b"Hello")], "clean"),
    "2.3": (frame(FIN | PING, b"\x00\xff\xfe\xfd"), [pong(b"\x00\xff\xfe\xfd")], "clean"),
    "2.4": (frame(FIN | PING, b"\xfe" * 125), [pong(b"\xfe" * 125)], "clean"),
    "2.5": (frame(FIN | PING, b"\xfe" * 126), [], 1002),
    "2.7": (frame(FIN | PONG), [], "clean"),
    "2.8": (frame(FIN | PONG, b"unasked"), [], "clean"),
    "2.9": (frame(FIN | PONG, b"unasked") + frame(FIN | PING, b"asked"), [pong(b"asked")], "clean"),
    "2.10": (b"".join(frame(FIN | PING, b"%d" % i) for i in range(10)), [pong(b"%d" % i) for i in range(10)], "clean"),
    # 3 Reserved bits
    "3.1": (frame(FIN | 0x10 | TEXT, b"x"), [], 1002),
    "3.2": (text(HELLO) + frame(FIN | 0x20 | TEXT, b"x") + frame(FIN | PING), [said(HELLO)], 1002),
    "3.3": (text(HELLO) + frame(FIN | 0x30 | TEXT, b"x") + frame(FIN | PING), [said(HELLO)], 1002),
    "3.4": (text(HELLO) + frame(FIN | 0x40 | TEXT, b"x") + frame(FIN | PING), [said(HELLO)], 1002),
    "3.5": (frame(FIN | 0x50 | BINARY, b"x"), [], 1002),
    "3.6": (frame(FIN | 0x60 | PING, b"x"), [], 1002),
    "3.7": (frame(FIN | 0x70 | CLOSE), [], 1002),
    # 4 Opcodes
    "4.1.1": (frame(FIN | 3), [], 1002),
    "4.1.2": (frame(FIN | 4, b"reserved"), [], 1002),
    "4.1.3": (text(HELLO) + frame(FIN | 5) + frame(FIN | PING), [said(HELLO)], 1002),
    "4.1.4": (text(HELLO) + frame(FIN | 6, b"reserved") + frame(FIN | PING), [said(HELLO)], 1002),
    "4.1.5": (text(HELLO) + frame(FIN | 7, b"reserved") + frame(FIN | PING), [said(HELLO)], 1002),
    "4.2.1": (frame(FIN | 11), [], 1002),
    "4.2.2": (frame(FIN | 12, b"reserved"), [], 1002),
    "4.2.3": (text(HELLO) + frame(FIN | 13) + frame(FIN | PING), [said(HELLO)], 1002),
    "4.2.4": (text(HELLO) + frame(FIN | 14, b"reserved") + frame(FIN | PING), [said(HELLO)], 1002),
    "4.2.5": (text(HELLO) + frame(FIN | 15, b"reserved") + frame(FIN | PING), [said(HELLO)], 1002),
    # 5 Fragmentation
    "5.1": (frame(PING, b"1") + frame(FIN | MORE, b"2"), [], 1002),
    "5.2": (frame(PONG, b"1") + frame(FIN | MORE, b"2"), [], 1002),
    "5.3": (fragments(b"1", b"2"), [said("12")], "clean"),
    "5.6": (frame(TEXT, b"1") + frame(FIN | PING, b"p") + frame(FIN | MORE, b"2"), [pong(b"p"), said("12")], "clean"),
    "5.9": (frame(FIN | MORE, b"nothing") + text("x"), [], 1002),
    "5.12": (frame(MORE, b"nothing") + text("x"), [], 1002),
    "5.15": (fragments(b"1", b"2") + frame(MORE, b"3") + text("4"), [said("12")], 1002),
    "5.16": ((frame(MORE, b"1") + frame(TEXT, b"2") + frame(FIN | MORE, b"3")) * 2, [], 1002),
    "5.17": ((frame(FIN | MORE, b"1") + frame(TEXT, b"2") + frame(FIN | MORE, b"3")) * 2, [], 1002),
    "5.18": (frame(TEXT, b"1") + frame(FIN | TEXT, b"2"), [], 1002),
    "5.19": (
        frame(TEXT, b"1")
        + frame(MORE, b"2")
        + frame(FIN | PING, b"p")
        + frame(MORE, b"3")
        + frame(MORE, b"4")
        + frame(FIN | PING, b"q")
        + frame(FIN | MORE, b"5"),
        [pong(b"p"), pong(b"q"), said("12345")],
        "clean",
    ),
    # 6 UTF-8
    "6.1.1": (text(""), [said("")], "clean"),
    "6.1.2": (fragments(b"", b"", b""), [said("")], "clean"),
    "6.1.3": (fragments(b"", b"middle", b""), [said("middle")], "clean"),
    "6.2.1": (frame(FIN | TEXT, KOSME), [said(KOSME)], "clean"),
    "6.2.2": (fragments(KOSME[:5], KOSME[5:]), [said(KOSME)], "clean"),
    "6.2.3": (octets(KOSME), [said(KOSME)], "clean"),
    "6.3.1": (frame(FIN | TEXT, SURROGATE), [], 1007),
    "6.3.2": (octets(SURROGATE), [], 1007),
    # The rest of the message, or of its frame, does not come: what came is enough to fail.
    "6.4.1": (frame(TEXT, KOSME) + frame(MORE, b"\xf4\x90\x80\x80"), [], 1007),
    "6.4.2": (frame(TEXT, KOSME + b"\xf4") + frame(MORE, b"\x90"), [], 1007),
    "6.4.3": (frame(FIN | TEXT, KOSME + b"\xf4\x90\x80\x80edited")[:-6], [], 1007),
    "6.4.4": (frame(FIN | TEXT, KOSME + b"\xf4\x90\x80\x80edited")[:-8], [], 1007),
    # 7 Closing
    "7.1.2": (closing(1000) * 2, [], 1000),
    "7.1.3": (closing(1000) + frame(FIN | PING), [], 1000),
    "7.1.4": (closing(1000) + text(HELLO), [], 1000),
    "7.1.5": (frame(TEXT, b"1") + closing(1000) + frame(FIN | MORE, b"2"), [], 1000),
    "7.3.1": (closing(), [], None),
    "7.3.2": (frame(FIN | CLOSE, b"\x03"), [], 1002),
    "7.3.3": (closing(1000), [], 1000),
    "7.3.4": (closing(1000, HELLO.encode()), [], 1000),
    "7.3.5": (closing(1000, b"*" * 123), [], 1000),
    "7.3.6": (closing(1000, b"*" * 124), [], 1002),
    "7.5.1": (closing(1000, SURROGATE), [], 1007),
    "7.13.1": (closing(5000), [], 1002),  # any verdict would do: there is no rule
    "7.13.2": (closing(65535), [], 1002),
}
for i, n in enumerate((0, 125, 126, 127, 128, 65535, 65536), 1):
    CASES[f"1.1.{i}"] = (frame(FIN | TEXT, b"*" * n), [said(b"*" * n)], "clean")
    CASES[f"1.2.{i}"] = (frame(FIN | BINARY, b"\xfe" * n), [(FIN | BINARY, b"\xfe" * n)], "clean")
for i, code in enumerate((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999), 1):
    CASES[f"7.7.{i}"] = (closing(code), [], code)
for i, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
    CASES[f"7.9.{i}"] = (closing(code), [], 1002)


def end(client, how):
    if how == "clean":
        client.send(closing(1000))
        how = 1000
    first, payload = client.frame()
    assert first == FIN | CLOSE
    assert (struct.unpack(">H", payload[:2])[0] if payload else None) == how, payload
    client.ended()


# The suite has some cases twice, in chops of one octet; here all are, but the long ones.
@pytest.mark.parametrize("chop", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_case(echo_server, case, chop):
    data, frames, how = CASES[case]
    with Client(echo_server.port).open("/echo") as client:
        client.send(data, chop if len(data) < 1000 else 997 * chop)
        assert [client.frame() for _ in frames] == frames
        end(client, how)


# 6.5 to 6.23, from Markus Kuhn's UTF-8 decoder stress test.
GOOD = [
    *(b"hello$world", "hello¢world".encode(), "hello€world".encode(), b"hello\xf0\xa4\xad\xa2world", KOSME),
    *(b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"),
    *(b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"),
    *(b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf"),
    *(b"\xef\xbf\xbe", b"\xf0\x9f\xbf\xbe", b"\xf0\x9f\xbf\xbf", b"\xf3\xaf\xbf\xbe", b"\xf4\x8f\xbf\xbe"),
]
BAD = [
    *(KOSME[:i] for i in (1, 3, 4, 6, 8, 10)),
    *(b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"),
    *(b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf", b"\xf4\x90\x80\x80"),
    *(b"\x80", b"\xbf", b"\x80\xbf", b"\x80\xbf\x80", b"\x80\xbf\x80\xbf\x80\xbf", bytes(range(0x80, 0xC0))),
    *(
        b" ".join(bytes([i]) for i in group) + b" "
        for group in (range(0xC0, 0xE0), range(0xE0, 0xF0), range(0xF0, 0xF8))
    ),
    *(b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"),
    *(b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"),
    *(b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"),
    *(b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"),
    *(b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"),
    *(b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"),
    *(
        b"\xed\xa0\x80",
        b"\xed\xad\xbf",
        b"\xed\xae\x80",
        b"\xed\xaf\xbf",
        b"\xed\xb0\x80",
        b"\xed\xbe\x80",
        b"\xed\xbf\xbf",
    ),
    *(b"\xed\xa0\x80\xed\xb0\x80", b"\xed\xad\xbf\xed\xbf\xbf", b"\xed\xaf\xbf\xed\xb0\x80"),
]


@pytest.mark.parametrize("build", [lambda b: frame(FIN | TEXT, b), octets], ids=["whole", "octets"])
def test_utf8(echo_server, build):
    with Client(echo_server.port).open("/echo") as client:
        for payload in GOOD:
            client.send(build(payload))
            assert client.frame() == said(payload)
        end(client, "clean")
    for payload in BAD:
        with Client(echo_server.port).open("/echo") as client:
            client.send(build(payload))
            end(client, 1007)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [65536 << i for i in range(9) if i in (0, 2, 4, 6, 7, 8)])
def test_large_messages(echo_server, opcode, size):
    """9.1 and 9.2"""
    with Client(echo_server.port).open("/echo") as client:
        client.send(frame(FIN | opcode, b"*" * size))
        assert client.message() == ("*" if opcode == TEXT else b"*") * size
        end(client, "clean")


@pytest.mark.parametrize(("total", "size"), [(4 << 20, 64 << i) for i in range(0, 17, 2)] + [(65536, 1300)])
def test_messages_in_fragments(echo_server, total, size):
    """9.3, 9.4 and 10.1.1"""
    whole = b"0123456789abcdef" * (total // 16)
    with Client(echo_server.port).open("/echo") as client:
        client.send(fragments(*(whole[i : i + size] for i in range(0, total, size)), b"", opcode=BINARY))
        assert client.message() == whole
        end(client, "clean")


@pytest.mark.parametrize("size", [64, 256, 2048])
def test_messages_in_chops(echo_server, size):
    """9.5 and 9.6"""
    with Client(echo_server.port).open("/echo") as client:
        client.send(frame(FIN | TEXT, b"*" * (1 << 20)), size)
        assert client.message() == "*" * (1 << 20)
        end(client, "clean")


@pytest.mark.parametrize("size", [0, 16, 64, 256, 1024, 4096])
def test_round_trips(echo_server, size):
    """9.7 and 9.8"""
    with Client(echo_server.port).open("/echo") as client:
        for _ in range(300):
            client.send(frame(FIN | BINARY, b"\xfe" * size))
            assert client.message() == b"\xfe" * size
        end(client, "clean")


NO = "server_no_context_takeover"
OFFERS = {
    "12": ("permessage-deflate; client_max_window_bits", True),
    "13.1": ("permessage-deflate", True),
    "13.2": (f"permessage-deflate; {NO}; client_no_context_takeover", True),
    # A server window of 512 bytes cannot be had of Go's compressor: declined (RFC 7692 7.1.2.1).
    "13.3": ("permessage-deflate; server_max_window_bits=9; client_max_window_bits", False),
    "13.4": ("permessage-deflate; server_max_window_bits=15; client_max_window_bits", True),
    "13.5": (f"permessage-deflate; {NO}; server_max_window_bits=9", False),
    "13.6": (f"permessage-deflate; {NO}; server_max_window_bits=15", True),
    "13.7": (f"permessage-deflate; {NO}; server_max_window_bits=9, permessage-deflate; {NO}, permessage-deflate", True),
}


@pytest.mark.parametrize("case", OFFERS)
def test_compression(echo_server, case):
    """12 and 13: messages of every size, compressed where that was granted."""
    offer, granted = OFFERS[case]
    with Client(echo_server.port).open("/echo", f"Sec-WebSocket-Extensions: {offer}") as client:
        answer = dict(client.answer).get("sec-websocket-extensions", "")
        assert answer.startswith("permessage-deflate") == granted
        assert not granted or "client_no_context_takeover" in answer
        for n in (0, 16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072):
            whole = (b'{"case": "' + case.encode() + b'", "n": 12345}, ' * (n // 20 + 1))[:n]
            for parts in (1, 3):
                packed = whole
                if granted:
                    packer = zlib.compressobj(wbits=-15)  # anew for each, without context
                    packed = (packer.compress(whole) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
                bit, size = RSV1 if granted else 0, len(packed) // parts + 1
                frames = [packed[i : i + size] for i in range(0, len(packed), size)] or [b""]
                for i, part in enumerate(frames):
                    first = (TEXT | bit) if i == 0 else MORE
                    client.send(frame(first | (FIN if part is frames[-1] else 0), part))
                got, compressed = b"", False
                while True:
                    first, payload = client.frame()
                    compressed = compressed or bool(first & RSV1)
                    got += payload
                    if first & FIN:
                        break
                assert not compressed or granted
                assert (
                    zlib.decompress(got + b"\0\0\xff\xff\x01\0\0\xff\xff", wbits=-15) if compressed else got
                ) == whole
        end(client, "clean")
