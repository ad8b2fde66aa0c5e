"""The app of these tests: what it does is in the path."""

import asyncio
import ctypes
import json
import multiprocessing
import os
import re
import sys
import time

VERSION = "1"
with open("imports", "a") as file:
    file.write(f"{os.getpid()}\n")
hoard = []


def child():
    time.sleep(60)


async def lifespan(receive, send):
    await receive()
    await asyncio.sleep(float(os.environ.get("START_SECONDS", "0")))
    if os.path.exists("hang"):
        time.sleep(60)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    with open("shutdowns", "a") as file:
        file.write(f"{os.getpid()}\n")
    await send({"type": "lifespan.shutdown.complete"})


def scribble():
    """Overwrite all call slots and rings of the link."""
    for line in open("/proc/self/maps"):
        if "spvn-link" in line and " rw-s " in line:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            ctypes.memset(begin + 4096, 0xFF, end - begin - 4096)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    path, number = scope["path"].rpartition("/")[0], scope["path"].rpartition("/")[2]
    body = str(os.getpid())
    if scope["path"] == "/":
        await asyncio.sleep(0.005)
    elif scope["path"] == "/version":
        body = VERSION
    elif path == "/sleep":
        try:
            await asyncio.sleep(float(number))
        except asyncio.CancelledError:
            with open("cancelled", "a") as file:
                file.write(f"{os.getpid()}\n")
            raise
    elif path == "/block":
        time.sleep(float(number))
    elif path == "/match":
        re.match("(a+)+$", int(number) * "a" + "b")  # holds the GIL until the end of days
    elif path == "/die":
        os.kill(os.getpid(), int(number))
    elif path == "/exit":
        sys.exit(int(number))
    elif path == "/hoard":
        hoard.append(bytearray(os.urandom(1024)) * (int(number) << 10))
    elif scope["path"] == "/fork":
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.terminate()
        process.join()
        body = json.dumps({"exit": process.exitcode})
    elif scope["path"] == "/scribble":
        scribble()
    elif scope["path"] == "/scribble/later":
        await asyncio.sleep(0.02)  # until the core has seen that this call was begun
        scribble()
    elif scope["path"] == "/headers":
        body = json.dumps({"argv": sys.argv, "path": sys.path, "pid": os.getpid()})
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body.encode()})
