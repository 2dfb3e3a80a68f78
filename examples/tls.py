"""TLS with a certificate that is replaced while the daemon runs, by SIGHUP or systemctl reload.

A reload loads the files into a new context, which takes the place of the one in use only if that succeeds. So a key
that does not belong to the certificate changes nothing, and is logged.

Try it: socket-activate -l 2000 python3 examples/tls.py certificate.pem key.pem
"""

from __future__ import annotations

import ssl
import sys

import trio

import activation


def load(certificate: str, key: str) -> ssl.SSLContext:
    """Make a context for a server from its two files."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def echo(stream: trio.abc.Stream) -> None:
    """Answer on one connection, whose handshake is done."""
    while data := await stream.receive_some():
        await stream.send_all(data)


async def main(certificate: str, key: str) -> None:
    """Serve until a signal."""
    context = load(certificate, key)

    def reload() -> None:
        nonlocal context
        context = load(certificate, key)

    # A function instead of a context: each connection gets what is the newest then.
    await activation.serve(echo, activation.tls_listeners(lambda: context, everywhere=True), reload=reload)


if __name__ == "__main__":
    _, certificate_file, key_file = sys.argv
    trio.run(main, certificate_file, key_file)
