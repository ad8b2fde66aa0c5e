"""The same small WebSocket service on each framework: it sends every message back, and on "bye" it closes with 4000.

/ws echoes; the subprotocol "chat" is accepted where it is offered.
"""

from __future__ import annotations


def starlette():
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    return Starlette(routes=[WebSocketRoute("/ws", echo_of(WebSocket, WebSocketDisconnect))])


def fastapi():
    from fastapi import FastAPI, WebSocket, WebSocketDisconnect

    app = FastAPI()
    app.websocket("/ws")(echo_of(WebSocket, WebSocketDisconnect))
    return app


def echo_of(WebSocket, WebSocketDisconnect):
    async def echo(websocket):
        await websocket.accept("chat" if "chat" in websocket.scope["subprotocols"] else None)
        try:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if message.get("text") == "bye":
                    return await websocket.close(4000, "as you like")
                if message.get("text") is not None:
                    await websocket.send_text(message["text"])
                else:
                    await websocket.send_bytes(message["bytes"])
        except WebSocketDisconnect:
            pass

    echo.__annotations__ = {"websocket": WebSocket}
    return echo


def channels():
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(SECRET_KEY="x", ROOT_URLCONF=__name__, INSTALLED_APPS=["channels"], ALLOWED_HOSTS=["*"])
        django.setup()
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.core.asgi import get_asgi_application
    from django.urls import path

    class Echo(AsyncWebsocketConsumer):
        async def connect(self):
            await self.accept("chat" if "chat" in self.scope["subprotocols"] else None)

        async def receive(self, text_data=None, bytes_data=None):
            if text_data == "bye":
                await self.close(4000, "as you like")
            else:
                await self.send(text_data, bytes_data)

    return ProtocolTypeRouter(
        {
            "http": get_asgi_application(),
            "websocket": URLRouter([path("ws", Echo.as_asgi())]),
        }
    )


urlpatterns: list[object] = []


def socketio():
    import socketio

    server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")

    @server.on("hello")
    async def hello(sid, data):
        await server.emit("greeting", {"to": data}, to=sid)
        return "heard"

    return socketio.ASGIApp(server)


def test_page():
    """An echo, and a page that opens it, in a browser."""
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse, PlainTextResponse
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    async def page(request):
        return HTMLResponse(PAGE)

    async def said(request):
        return PlainTextResponse("")

    async def worker(websocket):
        import os

        await websocket.accept()
        await websocket.send_text(str(os.getpid()))
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            pass

    worker.__annotations__ = {"websocket": WebSocket}
    return Starlette(
        routes=[
            Route("/", page),
            Route("/said", said),
            WebSocketRoute("/ws", echo_of(WebSocket, WebSocketDisconnect)),
            WebSocketRoute("/worker", worker),
        ]
    )


test_page.__test__ = False

# The page says what it sees by asking for /said, one request after the other, which the access log has.
PAGE = """<!doctype html><title>WebSocket</title><script>
let saying = Promise.resolve();
const say = (word) => { saying = saying.then(() => fetch('/said?' + encodeURIComponent(word))); };
const url = location.origin.replace('http', 'ws');
const socket = new WebSocket(url + '/ws', ['chat', 'other']);
socket.binaryType = 'arraybuffer';
const large = 'ä'.repeat(100000);
socket.onopen = () => { say('open ' + socket.protocol + ' ' + socket.extensions); socket.send('hello'); };
socket.onmessage = (event) => {
  if (event.data === 'hello') { say('hello'); socket.send(new Uint8Array([0, 255])); }
  else if (event.data instanceof ArrayBuffer) { say('bytes ' + new Uint8Array(event.data)); socket.send(large); }
  else { say('large ' + (event.data === large)); socket.send('bye'); }
};
socket.onclose = (event) => { say('closed ' + event.code + ' ' + event.reason + ' ' + event.wasClean); follow(0); };
let last = null;
function follow(tries) {
  const other = new WebSocket(url + '/worker');
  other.onmessage = (event) => {
    if (last === null) { last = event.data; say('worker'); }
    else if (event.data !== last) { say('another worker'); other.onclose = null; other.close(1000); }
  };
  other.onclose = (event) => {
    say('closed ' + event.code);
    if (tries < 50) { setTimeout(() => follow(tries + 1), 200); }
  };
}
</script>"""
