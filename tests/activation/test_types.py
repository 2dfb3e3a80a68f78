"""What a type checker makes of serve() and what goes with it. `make check` reads this; there is nothing to run.

Where an error is expected, mypy finds one: an ignored error that is none is an error of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from functools import partial
    from typing import assert_type

    import trio

    import activation

    TLSStream = trio.SSLStream[trio.SocketStream]

    async def plain(stream: trio.SocketStream) -> None: ...
    async def any_stream(stream: trio.abc.Stream) -> None: ...
    async def tls(stream: TLSStream) -> None: ...
    async def durable(stream: activation.DurableStream) -> None: ...
    async def messages(channel: activation.SeqpacketChannel) -> None: ...
    async def datagrams(conn: trio.socket.SocketType) -> None: ...

    async def right(
        listeners: list[trio.SocketListener],
        tls_listeners: list[trio.SSLListener[trio.SocketStream]],
        context: ssl.SSLContext,
    ) -> None:
        await activation.serve(plain)
        await activation.serve(any_stream, idle_timeout=60, status=str)
        await activation.serve(plain, listeners, connections=activation.streams())
        await activation.serve(plain, activation.listeners())
        await activation.serve(tls, tls_listeners)
        await activation.serve(any_stream, activation.tls_listeners(context))
        await activation.serve(any_stream, [*listeners, *tls_listeners])
        await activation.serve(messages, activation.seqpacket_listeners())
        await activation.serve(durable, durable=True)
        await activation.serve(durable, listeners, durable=activation.Durable())
        await activation.serve({"a": plain, "b": messages, "c": datagrams, "*": any_stream})
        await activation.serve({"a": any_stream}, activation.tls_listeners_with_names(context))
        await activation.serve(None, drain_timeout=5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(activation.serve, plain)
            await nursery.start(activation.serve, plain, listeners)
            await nursery.start(partial(activation.serve, plain, listeners, idle_timeout=5))
            nursery.start_soon(activation.serve, None)

    def run() -> None:
        trio.run(activation.serve, plain)
        trio.run(partial(activation.serve, plain, idle_timeout=5))

    async def wrong(
        listeners: list[trio.SocketListener],
        tls_listeners: list[trio.SSLListener[trio.SocketStream]],
        context: ssl.SSLContext,
    ) -> None:
        await activation.serve(tls)  # type: ignore[arg-type]
        await activation.serve(messages)  # type: ignore[arg-type]
        await activation.serve(durable)  # type: ignore[arg-type]
        await activation.serve(plain, durable=True)  # type: ignore[call-overload]
        await activation.serve(tls, listeners)  # type: ignore[arg-type]
        await activation.serve(tls, activation.seqpacket_listeners())  # type: ignore[arg-type]
        await activation.serve(tls, activation.tls_listeners(context))  # type: ignore[arg-type]
        await activation.serve(plain, tls_listeners)  # type: ignore[arg-type]
        await activation.serve(messages, listeners)  # type: ignore[arg-type]
        await activation.serve({"a": plain}, listeners)  # type: ignore[call-overload]
        await activation.serve(plain, idle="5")  # type: ignore[call-overload]
        await activation.serve(plain, idle_timeout="5")  # type: ignore[call-overload]

    async def blocks(stream: trio.SocketStream) -> None:
        with activation.until_stopping() as scope:
            while True:
                assert_type(scope, trio.CancelScope)
                await stream.send_all(await stream.receive_some())
        await stream.send_all(b"this is reached")

        with activation.busy() as nothing:
            assert_type(nothing, None)
        assert_type(activation.stop(), None)
