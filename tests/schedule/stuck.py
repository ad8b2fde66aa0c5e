"""An app whose timer never ends."""

from __future__ import annotations

import sys
import threading
from typing import Any

from spvn import schedule


def stuck() -> None:
    print("stuck", file=sys.stderr)
    threading.Event().wait()


schedule.every(3600, stuck, first=0)


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})
