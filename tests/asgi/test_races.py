"""The wake-up protocol with a real second thread on the core's end."""

from __future__ import annotations

import asyncio
import select
import threading
from typing import Any

from .core_side import Core, rung
from .harness import Runner, Worker

CALLS = 3000


def test_no_wake_up_is_lost(run: Runner) -> None:
    """The core's thread rings only a sleeping worker and sleeps itself between calls, and so does the worker."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/later":
            await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x"})

    def core_thread(core: Core, finished: threading.Event, failures: list[str]) -> None:
        offered = done = 0
        while done < CALLS:
            while offered < CALLS and offered - done < 1 + offered % 40:
                core.call(path=b"/later" if offered % 3 else b"/")
                offered += 1
            core.ring()
            for bell, ring in zip(core.loop_bells, core.outboxes):
                rung(bell)
                ring.set("sleeping", 1)
            taken = [record for record in core.take() if record.done]
            for record in taken:
                core.free(record.call)
            done += len(taken)
            if taken or done == CALLS:
                continue
            ready, _, _ = select.select(core.loop_bells, [], [], 10)
            if not ready:
                failures.append(f"no bell after {done} of {offered} calls")
                break
        finished.set()

    async def scenario(worker: Worker) -> None:
        for bell in worker.core.loop_bells:
            worker.loop.remove_reader(bell)
        finished = threading.Event()
        failures: list[str] = []
        thread = threading.Thread(target=core_thread, args=(worker.core, finished, failures))
        thread.start()
        await worker.loop.run_in_executor(None, finished.wait, 60)
        thread.join()
        for bell in worker.core.loop_bells:
            worker.loop.add_reader(bell, worker._ring, bell)
        assert failures == []

    assert run(app, scenario).errors == []
