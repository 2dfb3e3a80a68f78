"""Writes each line that a client sends into an SQLite database, exactly once, whenever the daemon is killed.

    socket-activate -l /tmp/inserts.sk python examples/durable_inserts.py /tmp/lines.db

What a handler does elsewhere happens at least once: a daemon that is killed between the INSERT and the next receive
does it again. The connection's id and the number of its commits are the same then, so they are the key by which the
second INSERT changes nothing.
"""

import logging
import sqlite3
import sys
from functools import partial

import trio

import activation

TABLE = (
    "CREATE TABLE IF NOT EXISTS lines (connection TEXT, number INTEGER, line TEXT, PRIMARY KEY (connection, number))"
)
INSERT = "INSERT INTO lines VALUES (?, ?, ?) ON CONFLICT DO NOTHING"


async def write(database: sqlite3.Connection, stream: activation.DurableStream) -> None:
    """Write each line, and say so."""
    while line := await stream.receive_until(b"\n"):
        with database:  # one transaction
            database.execute(INSERT, (stream.id, stream.commits, line.decode(errors="replace").rstrip("\n")))
        await stream.send_all(b"written: " + line)


async def main(path: str) -> None:
    """Serve what was passed."""
    database = sqlite3.connect(path)
    try:
        database.execute(TABLE)
        await activation.serve(partial(write, database), durable=True)
    finally:
        database.close()


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    trio.run(main, sys.argv[1])
