"""A daemon whose handler computes: 100 times SHA-256 of each message, which it then sends back."""

import hashlib

import trio

import activation


async def work(stream: trio.SocketStream) -> None:
    async for data in stream:
        digest = data
        for _ in range(100):
            digest = hashlib.sha256(digest).digest()
        await stream.send_all(data)


trio.run(activation.serve, work)
