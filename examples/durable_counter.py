"""Counts the lines of each connection, over restarts, crashes and kill -9: `client` notices none of them.

    socket-activate -l /tmp/counter.sk python examples/durable_counter.py

Under systemd, its unit needs FileDescriptorStoreMax=4.
"""

import logging

import trio

import activation


async def count(stream: activation.DurableStream) -> None:
    """Answer each line with its number on this connection, and the line."""
    # A receive is a commit: the line before, the state and the answer take effect together, or not at all.
    while line := await stream.receive_until(b"\n"):
        stream.state = b"%d" % (int(stream.state or b"0") + 1)
        await stream.send_all(stream.state + b" " + line)


async def main() -> None:
    """Serve what was passed."""
    await activation.serve(count, durable=True)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    trio.run(main)
