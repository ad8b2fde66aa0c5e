"""--reload: what is watched, and what clients see while the code cannot be imported.

The watching itself is the core's (it has the operating system tell it); here the options
are worked out as uvicorn's users know them.
"""

from __future__ import annotations

import html
import os
from typing import Any

from spvn._types import ASGI3App, Receive, Scope, Send
from spvn.config import Config

_INCLUDES = ["*.py"]
_EXCLUDES = [".*", ".py[cod]", ".sw.*", "~*"]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>The app cannot be loaded</title>
<style>body{{font:16px/1.5 sans-serif;margin:2em}}pre{{font:14px/1.4 monospace;overflow:auto;padding:1em;
background:#f4f4f4;color:#222}}</style></head>
<body><h1>The app cannot be loaded</h1><pre>{}</pre><p>Save a file, and spvn tries again.</p></body></html>
"""


def watch_options(config: Config) -> dict[str, Any]:
    """What the core is to watch. A directory among the includes is watched too, one among the excludes is not."""
    dirs = [os.path.abspath(folder) for folder in config.reload_dirs]
    includes = [pattern for pattern in _INCLUDES if pattern not in config.reload_excludes]
    excludes = [pattern for pattern in _EXCLUDES if pattern not in config.reload_includes]
    exclude_dirs = []
    for pattern in config.reload_includes:
        if os.path.isdir(pattern):
            dirs.append(os.path.abspath(pattern))
        else:
            includes.append(pattern)
    for pattern in config.reload_excludes:
        if os.path.isdir(pattern):
            exclude_dirs.append(os.path.abspath(pattern))
        else:
            excludes.append(pattern)
    return {
        "dirs": dirs or [os.getcwd()],
        "includes": includes,
        "excludes": excludes,
        "exclude_dirs": exclude_dirs,
        "delay": config.reload_delay,
    }


def error_page(report: str) -> ASGI3App:
    """An app that answers every request with 500 and this text: HTML for who asks for it, plain text otherwise."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1011, "reason": "the app cannot be loaded"})
            return
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
        if b"text/html" in accept:
            kind, text = b"text/html; charset=utf-8", _PAGE.format(html.escape(report))
        else:
            kind, text = b"text/plain; charset=utf-8", f"The app cannot be loaded.\n\n{report}\n"
        body = text.encode("utf-8", "replace")
        headers = [
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 500, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
