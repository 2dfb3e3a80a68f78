"""The handler of bare_trio.py with all that activation.serve() does around it."""

import trio

import activation


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


trio.run(activation.serve, echo)
