"""Which certificates speak for a SIP domain, on real connections: those that come in and those that we open (RFC 5922, T1, G8)."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from tests.loop import in_loop
from tests.paths.kit import ALICE, ServerProcess, free_ports

PATIENCE = 15.0


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """One that everybody believes, and that certifies anything."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / "authority.pem"
        self.file.write_bytes(self._sign("authority", self._key, (), is_ca=True))

    def _sign(
        self, common_name: str, key: ec.EllipticCurvePrivateKey, names: tuple[x509.GeneralName, ...], *, is_ca: bool
    ) -> bytes:
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(_name("authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def certify(self, file: str, common_name: str, *names: x509.GeneralName) -> Path:
        """A certificate with its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self._folder / f"{file}.pem"
        path.write_bytes(secret + self._sign(common_name, key, names, is_ca=False))
        return path


@dataclass
class World:
    authority: Authority
    server: ServerProcess
    ports: dict[str, int]
    """Where the next hop to each other domain is."""


OTHERS = ("exact.peer.test", "wild.peer.test", "common.peer.test", "other.peer.test")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("certificates")
    authority, server = Authority(folder), ServerProcess(folder / "a", people=(ALICE,))
    ports = dict(zip(OTHERS, free_ports(len(OTHERS)), strict=True))
    text = server.config.read_text(encoding="utf-8") + f'[tls]\ntrust = "{authority.file}"\n'
    for domain, port in ports.items():
        text += f'[[route]]\ndomain = "{domain}"\nnext_hop = "tls://127.0.0.1:{port}"\nkeep_alive = "off"\n'
    server.config.write_text(text, encoding="utf-8")
    with server:
        server.start()
        yield World(authority, server, ports)


async def hands_in(world: World, certificate: Path, sender: str, number: int) -> int:
    """What a server with that certificate is answered for a message of ``sender``."""
    context = ssl.create_default_context(cafile=world.server.authority)
    context.load_cert_chain(certificate)
    host, port = world.server.port("sip", "tls")
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="a.test")
    try:
        writer.write(
            (
                f"MESSAGE sip:alice@a.test SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1:5061;branch=z9hG4bK{number}\r\n"
                f"Max-Forwards: 70\r\nFrom: <sip:{sender}>;tag=1\r\nTo: <sip:alice@a.test>\r\nCall-ID: c{number}\r\n"
                "CSeq: 1 MESSAGE\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"
            ).encode()
        )
        line = await asyncio.wait_for(reader.readline(), PATIENCE)
        return int(line.split()[1])
    finally:
        await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close it; the other end may have left before."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


DNS, URI = x509.DNSName, x509.UniformResourceIdentifier


@in_loop
async def test_only_a_dns_name_of_its_own_speaks_for_a_domain(world: World) -> None:
    """No wildcard, no common name, no address; and nothing speaks for a domain of ours (SEC-33)."""
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    cases: list[tuple[str, tuple[x509.GeneralName, ...], str, int]] = [
        ("x", (DNS("pbx.test"),), "dave@pbx.test", 202),
        ("x", (DNS("PBX.test"), DNS("more.test")), "dave@more.test", 202),
        ("x", (DNS("*.test"),), "dave@pbx.test", 403),
        ("x", (DNS("*.pbx.test"),), "dave@sub.pbx.test", 403),
        ("pbx.test", (), "dave@pbx.test", 403),
        ("pbx.test", (DNS("other.test"),), "dave@pbx.test", 403),
        ("x", (loopback,), "dave@127.0.0.1", 403),
        ("x", (loopback, DNS("pbx.test")), "dave@127.0.0.1", 403),
        ("x", (x509.RFC822Name("dave@pbx.test"),), "dave@pbx.test", 403),
        ("x", (URI("sip:dave@pbx.test"),), "dave@pbx.test", 403),
        ("x", (DNS("a.test"),), "alice@a.test", 401),
        ("x", (DNS("pbx.test"),), "dave@sub.pbx.test", 403),
        ("x", (DNS("sub.pbx.test"),), "dave@pbx.test", 403),
        ("x", (DNS("localhost"),), "dave@localhost", 403),
    ]
    for number, (common_name, names, sender, expected) in enumerate(cases):
        certificate = world.authority.certify(f"in{number}", common_name, *names)
        assert await hands_in(world, certificate, sender, number) == expected, (common_name, names, sender)


@in_loop
async def test_a_next_hop_has_to_show_the_domain_itself(world: World) -> None:
    """RFC 5922 section 7.2: what is for a domain is written to nobody whose certificate has a wildcard or a common name for it."""
    shown: dict[str, tuple[str, tuple[x509.GeneralName, ...]]] = {
        "exact.peer.test": ("x", (DNS("exact.peer.test"),)),
        "wild.peer.test": ("x", (DNS("*.peer.test"),)),
        "common.peer.test": ("common.peer.test", ()),
        "other.peer.test": ("other.peer.test", (DNS("exact.peer.test"),)),
    }
    heard: dict[str, bytes] = {}
    met = {domain: asyncio.Event() for domain in OTHERS}
    servers = AsyncExitStack()
    for domain, (common_name, names) in shown.items():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(world.authority.certify(domain, common_name, *names))

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, domain: str = domain) -> None:
            try:
                heard[domain] = await reader.readline()
            except ConnectionError:  # the other end left
                heard[domain] = b""
            await closed(writer)
            met[domain].set()

        server = await asyncio.start_server(connected, "127.0.0.1", world.ports[domain], ssl=context)
        await servers.enter_async_context(server)
    async with servers, world.server.client("sip", ALICE, receive=False) as alice:
        for domain in OTHERS:
            to = Address.parse(f"im:bob@{domain}")
            raw = f"From: <{ALICE.uri}>\r\nTo: <{to.uri}>\r\n\r\nContent-Type: text/plain\r\n\r\nx"
            await alice.send(MimeObject.of("message/cpim", raw.encode()), to)
        async with asyncio.timeout(PATIENCE):
            for domain in OTHERS:
                await met[domain].wait()
    assert heard["exact.peer.test"].startswith(b"MESSAGE ")
    assert [heard[domain] for domain in OTHERS[1:]] == [b"", b"", b""]
