"""Start a command when a client comes to the listening socket at 3: with activation's open_process(), or trio's."""

import socket
import sys

import trio

import activation


async def main(how: str, command: list[str]) -> None:
    listener = socket.socket(fileno=3)
    open_process = activation.open_process
    print("listening", flush=True)
    await trio.lowlevel.wait_readable(listener)
    if how == "activation":
        process = await open_process(command, [("", listener)])
    else:
        process = await trio.lowlevel.open_process(command, pass_fds=(3,))
    await process.wait()


trio.run(main, sys.argv[1], sys.argv[2:])
