"""A chat room on WebSockets, raw ASGI: everybody hears what anybody says.

    spvn chat:app --app-dir examples

Open http://127.0.0.1:8000/ in two windows. Each client has a queue and a task that sends from it, so that one
that reads slowly delays nobody: what it cannot take in time is dropped, and spvn closes it when it takes nothing at
all (--timeout-ws-send).
"""

from __future__ import annotations

import asyncio

PAGE = b"""<!doctype html><meta charset="utf-8"><title>chat</title>
<form><input autofocus autocomplete="off" placeholder="Say something"></form><ul></ul>
<script>
const list = document.querySelector('ul'), input = document.querySelector('input');
let socket;
function connect() {
  socket = new WebSocket(location.origin.replace('http', 'ws') + '/chat', 'chat');
  socket.onmessage = (event) => {
    const item = document.createElement('li');
    item.textContent = event.data;
    list.prepend(item);
  };
  // 1012 is a restart of the server: come again.
  socket.onclose = (event) => setTimeout(connect, event.code === 1012 ? 100 : 2000);
}
connect();
document.querySelector('form').onsubmit = (event) => {
  event.preventDefault();
  socket.send(input.value);
  input.value = '';
};
</script>"""

WAITING = 100  # messages that may wait for one client
ROOM: set[asyncio.Queue[str]] = set()


def say(text: str) -> None:
    for queue in ROOM:
        if not queue.full():
            queue.put_nowait(text)


async def hear(queue: asyncio.Queue[str], send) -> None:
    """Sends one client what is said, until it is gone."""
    while True:
        await send({"type": "websocket.send", "text": await queue.get()})


async def chat(scope, receive, send) -> None:
    message = await receive()
    assert message["type"] == "websocket.connect"
    if "chat" not in scope["subprotocols"]:
        await send({"type": "websocket.close"})  # before accept: the client gets a 403
        return
    await send({"type": "websocket.accept", "subprotocol": "chat"})
    queue: asyncio.Queue[str] = asyncio.Queue(WAITING)
    ROOM.add(queue)
    hearing = asyncio.ensure_future(hear(queue, send))
    try:
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text"):
                say(message["text"])
    finally:
        ROOM.discard(queue)
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)


async def app(scope, receive, send) -> None:
    if scope["type"] == "websocket":
        return await chat(scope, receive, send)
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    headers = [(b"content-type", b"text/html; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PAGE})
