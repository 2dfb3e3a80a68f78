"""A handler that echoes and counts: ``counting.py plain``, ``bare``, without serve(), ``durable``, or ``stored``."""

import sys
from functools import partial

import trio

import activation


async def plain(stream: trio.SocketStream) -> None:
    state = b""
    while data := await stream.receive_some():
        state = b"%d" % (int(state or b"0") + 1)
        await stream.send_all(data)


async def stored(stream: trio.SocketStream) -> None:
    """Store each connection with the service manager."""
    activation.store("connection", stream.socket)
    await plain(stream)


async def durable(stream: activation.DurableStream) -> None:
    while data := await stream.receive_some():
        stream.state = b"%d" % (int(stream.state or b"0") + 1)
        await stream.send_all(data)


async def bare() -> None:
    await trio.serve_listeners(plain, [listener for listener in activation.listeners() if listener])


kind = sys.argv[1]
if kind == "bare":
    trio.run(bare)
else:
    handler = {"plain": plain, "stored": stored, "durable": durable}[kind]
    trio.run(partial(activation.serve, handler, durable=kind == "durable"))
