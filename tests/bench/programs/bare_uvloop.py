"""The least that echoes with asyncio's streams on uvloop."""

import asyncio
import socket

import uvloop


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_unix_server(echo, sock=socket.socket(fileno=3))
    await server.serve_forever()


uvloop.run(main())
