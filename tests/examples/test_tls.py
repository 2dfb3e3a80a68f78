"""The certificate of a running daemon is replaced, and one that cannot be used is not."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trio
import trustme

from activation.testing import activated

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Started


async def test_a_reload_replaces_the_certificate_and_a_wrong_key_changes_nothing(
    started: Started, tmp_path: Path
) -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    files = [tmp_path / "certificate.pem", tmp_path / "key.pem"]

    def write(name: str, *, key: bool = True) -> None:
        issued = authority.issue_cert("localhost", common_name=name)
        files[0].write_bytes(issued.cert_chain_pems[0].bytes())
        if key:
            files[1].write_bytes(issued.private_key_pem.bytes())

    async def name() -> object:
        async with trio.SSLStream(await daemon.connect("tls"), trusting, server_hostname="localhost") as client:
            await client.send_all(b"word")
            assert await client.receive_some() == b"word"
            certificate = client.getpeercert()
        return dict(item for names in certificate["subject"] for item in names)["commonName"]

    write("first")
    async with activated(started("tls", *map(str, files)), {"tls": "tcp"}) as daemon:
        await daemon.ready()
        assert await name() == "first"
        write("second", key=False)
        await daemon.reload()
        assert await name() == "first"
        write("third")
        await daemon.reload()
        assert await name() == "third"
