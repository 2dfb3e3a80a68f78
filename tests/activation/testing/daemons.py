"""Daemons that the kit is tried on: each an async function, and a command when this file is run with its name."""

from __future__ import annotations

import os
import socket
import sys

import trio

import activation


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def echoing() -> None:
    """What most daemons are: serve() with all that it does."""
    await activation.serve(echo, reload=lambda: None, drain_timeout=0.05)


async def every_kind() -> None:
    """Echo on every kind of socket, and tell by which names they came."""

    async def messages(channel: activation.SeqpacketChannel) -> None:
        async for message in channel:
            await channel.send(message)

    async def packets(sock: trio.socket.SocketType) -> None:
        while True:
            packet, sender = await sock.recvfrom(1000)
            await sock.sendto(packet, sender)

    names = [file.name for file in activation.files(unset_env=False)]
    activation.notify("X_NAMES=" + ",".join(names))
    await activation.serve({"c": packets, "d": packets, "e": messages, "*": echo}, drain_timeout=0.05)


async def counting() -> None:
    """Keep the count of starts in the store."""
    passed = {file.name: file for file in activation.files()}
    if "starts" in passed:
        memory = passed["starts"].detach()
    else:
        memory = os.memfd_create("starts")
        activation.notify("FDSTORE=1", "FDNAME=starts", fds=[memory])
    starts = int(os.pread(memory, 100, 0) or b"0") + 1
    os.pwrite(memory, b"%d" % starts, 0)
    os.close(memory)
    activation.notify(f"X_START={starts}")
    await activation.serve(echo, activation.listeners([passed["a"]]), drain_timeout=0.05)


async def remembering() -> None:
    """Keep the count of starts as a state."""
    starts = int(activation.stored_state("starts") or b"0") + 1
    assert activation.store_state("starts", b"%d" % starts)
    activation.notify(f"X_START={starts}")
    passed = activation.files()
    await activation.serve(echo, activation.listeners([file for file in passed if file.name == "a"]))


async def durable() -> None:
    """Number each client's lines, over restarts and crashes."""

    async def number(stream: activation.DurableStream) -> None:
        while line := await stream.receive_until(b"\n"):
            stream.state = b"%d" % (int(stream.state or b"0") + 1)
            await stream.send_all(stream.state + b" " + line)

    await activation.serve(number, durable=True)


async def leaving() -> None:
    """Leave as soon as nobody is connected."""
    await activation.serve(echo, idle_timeout=0.05)


async def failing() -> None:
    print("about to fail", file=sys.stderr)
    raise RuntimeError("no such luck")


async def exiting() -> None:
    """End with a status of its own when it is told to stop."""
    await echoing()
    raise SystemExit(7)


async def never_ready() -> None:
    for file in activation.files():
        file.close()
    activation.notify("X_STATE=warming up")
    await trio.sleep_forever()


async def silent() -> None:
    """Be ready, and say nothing to the watchdog, nor hear a signal."""
    activation.notify(activation.READY)
    await trio.sleep_forever()


async def environment() -> None:
    """Tell what it finds."""
    seen = [os.environ["GREETING"], os.environ["OTHER"], activation.watchdog_enabled(), activation.files()]
    activation.notify("X_SEEN=" + " ".join(map(str, seen)))
    await activation.serve(None)


async def closing() -> None:
    """Take what was passed, and be done."""
    for file in activation.files():
        file.close()
    activation.notify(activation.READY)


async def binding() -> None:
    """Leave a socket of its own."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.environ["OWN"])
        sock.listen()
        await activation.serve(None)


async def writing() -> None:
    """Leave a file beside the sockets."""
    (file,) = activation.files()
    with socket.socket(fileno=file.detach()) as sock:
        with open(os.path.join(os.path.dirname(sock.getsockname()), "pid"), "w"):
            pass
        await activation.serve(None)


async def unlinking() -> None:
    """Remove the path that it was passed."""
    (file,) = activation.files()
    with socket.socket(fileno=file.detach()) as sock:
        os.unlink(sock.getsockname())
    activation.notify(activation.READY)


async def unlinking_silently() -> None:
    await unlinking()
    await trio.sleep(0.5)


if __name__ == "__main__":
    trio.run(globals()[sys.argv[1]])
