"""The least that echoes datagrams with asyncio; on uvloop with an argument of that name."""

import asyncio
import socket
import sys


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, client: tuple[str, int]) -> None:
        self.transport.sendto(data, client)


async def main() -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(Echo, sock=socket.socket(fileno=3))
    await asyncio.sleep(float("inf"))


if "uvloop" in sys.argv:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
