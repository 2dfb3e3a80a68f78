"""A worker: each message on a socket of sequential packets is a job, and none that was confirmed is lost.

    socket-activate --seqpacket -l /tmp/jobs.sk --fdname jobs -- python examples/worker.py results.txt

A job is counted by busy() from before it is confirmed until it is done. So the idle clock does not run while there are
jobs, and a daemon that was told to stop does them first, within drain_timeout: make that as long as a full queue takes.
"""

from __future__ import annotations

import hashlib
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import trio

import activation

if TYPE_CHECKING:
    from typing import BinaryIO

WORKERS = 2
MOST_QUEUED = 100


class Job(NamedTuple):
    """What is to be done, and what has to be left when it is done."""

    text: bytes
    counted: ExitStack


async def work(queue: trio.MemoryReceiveChannel[Job], results: BinaryIO) -> None:
    """Do one job after another."""
    async for job in queue:
        with job.counted:
            digest = await trio.to_thread.run_sync(hashlib.sha256, job.text)
            results.write(b"%s %s\n" % (job.text, digest.hexdigest().encode()))
            results.flush()


async def main(path: str) -> None:
    """Take jobs until the daemon is told to stop, and do what was taken."""
    into, queue = trio.open_memory_channel[Job](MOST_QUEUED)

    async def take(channel: activation.SeqpacketChannel) -> None:
        with activation.until_stopping():
            async for text in channel:
                counted = ExitStack()
                counted.enter_context(activation.busy())
                try:
                    await into.send(Job(text, counted))
                except trio.Cancelled:
                    counted.close()
                    raise
                # Whoever was not told so sends the job again, to the next start.
                await channel.send(b"queued " + text)

    with open(path, "ab") as results:  # noqa: ASYNC230
        async with trio.open_nursery() as workers:
            for _ in range(WORKERS):
                workers.start_soon(work, queue, results)
            await activation.serve({"jobs": take}, idle_timeout=60, drain_timeout=60)
            workers.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
