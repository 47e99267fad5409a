"""Small sessions, bindings and certificates the network tests share; everything else is the real thing."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import ParamSpec

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import NameOID

from comity.bindings.base import DatagramSession, HostPort, Link, Listener, Session, Transport
from comity.cpim.operations import Response
from comity.net.driver import LoopClock
from comity.net.limits import NetLimits
from comity.net.network import AsyncNetwork
from comity.net.resolver import Resolver
from comity.net.tls import TlsContexts
from comity.service.interfaces import Clock, Delivery, Service

PATIENCE = 5.0


P = ParamSpec("P")


def run_async(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
    """Run a coroutine test in a loop of its own; unfinished business is an error."""

    @wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 20))

    return wrapper


@dataclass(frozen=True)
class LineReceived:
    line: bytes


@dataclass(frozen=True)
class TlsWanted:
    pass


@dataclass(frozen=True)
class PeerEnded:
    pass


@dataclass(frozen=True)
class TimerFired:
    at: float


class LineSession:
    """Lines in, lines out; STARTTLS with the rule of X-36; answers the peer's end with its own."""

    def __init__(self) -> None:
        self.buffer = b""
        self.events: list[object] = []
        self.out: list[bytes] = []
        self.timer: float | None = None
        self.ends_with_peer = True

    def receive_data(self, data: bytes, now: float) -> None:
        assert data, "an empty read was handed to the session"
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for position, line in enumerate(lines):
            if line == b"STARTTLS":
                if self.buffer or position + 1 < len(lines):
                    self.out += [b"refused\n", b""]
                    return
                self.out.append(b"proceed\n")
                self.events.append(TlsWanted())
            else:
                self.events.append(LineReceived(line))

    def receive_eof(self, now: float) -> None:
        self.events.append(PeerEnded())
        if self.ends_with_peer:
            self.out.append(b"")

    def next_event(self) -> object | None:
        return self.events.pop(0) if self.events else None

    def data_to_send(self, now: float) -> list[bytes]:
        items, self.out = self.out, []
        return items

    def next_timer(self) -> float | None:
        return self.timer

    def handle_timer(self, now: float) -> None:
        self.timer = None
        self.events.append(TimerFired(now))


class EchoDatagramSession:
    def __init__(self) -> None:
        self.events: list[object] = []
        self.out: list[tuple[bytes, HostPort]] = []

    def receive_datagram(self, data: bytes, address: HostPort, now: float) -> None:
        if data == b"poison":
            raise RuntimeError("poison")
        self.events.append(LineReceived(data))
        self.out.append((data, address))

    def admits(self, address: HostPort, now: float) -> bool:
        return True

    def refuse_datagram(self, data: bytes, address: HostPort, now: float) -> bool:
        if data.startswith(b"urgent"):
            return False
        self.out.append((b"no " + data, address))
        return True

    def next_event(self) -> object | None:
        return self.events.pop(0) if self.events else None

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, HostPort]]:
        items, self.out = self.out, []
        return items

    def next_timer(self) -> float | None:
        return None

    def handle_timer(self, now: float) -> None:
        raise AssertionError("no timer was asked for")


class EchoBinding:
    """Echoes lines; understands a few words by which a test steers it. Records everything."""

    name = "echo"

    def __init__(self, *listeners: Listener, is_quiet: bool = False) -> None:
        self.is_quiet = is_quiet
        self.wanted = listeners
        self.links: list[Link] = []
        self.sessions: dict[Link, LineSession] = {}
        self.events: list[tuple[Link, object]] = []
        self.closed: list[tuple[Link, Exception | None]] = []
        self.changed = asyncio.Event()

    def listeners(self) -> Sequence[Listener]:
        return self.wanted

    def new_session(self, link: Link, role: str) -> Session | DatagramSession:
        self.links.append(link)
        self.changed.set()
        if link.peer.transport == "udp":
            return EchoDatagramSession()
        self.sessions[link] = LineSession()
        return self.sessions[link]

    def handle_event(self, link: Link, event: object) -> None:
        self.events.append((link, event))
        self.changed.set()
        if self.is_quiet or link.peer.transport == "udp":
            return
        session = self.sessions[link]
        match event:
            case TlsWanted():
                link.start_tls()
            case LineReceived(b"close"):
                session.out.append(b"bye\n")
                link.close()
            case LineReceived(b"abort"):
                session.out.append(b"lost\n")
                link.abort()
            case LineReceived(b"half"):
                session.out += [b"half\n", b""]
            case LineReceived(b"raise"):
                session.out.append(b"secret\n")
                raise RuntimeError("a mistake with internal detail")
            case LineReceived(b"pause"):
                link.pause_reading()
            case LineReceived(line):
                session.out.append(line + b"\n")

    def link_closed(self, link: Link, error: Exception | None) -> None:
        self.closed.append((link, error))
        self.changed.set()

    async def start(self, service: Service, network: object) -> None:
        raise NotImplementedError

    async def drain(self) -> None:
        raise NotImplementedError

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        raise NotImplementedError

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something the binding saw makes ``condition`` true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def lines(self) -> list[bytes]:
        return [event.line for _, event in self.events if isinstance(event, LineReceived)]


@asynccontextmanager
async def serving(
    *transports: Transport,
    limits: NetLimits | None = None,
    tls: TlsContexts | None = None,
    clock: Clock | None = None,
    resolver: Resolver | None = None,
    lag: Callable[[], float] = lambda: 0.0,
) -> AsyncIterator[tuple[AsyncNetwork, EchoBinding, list[HostPort]]]:
    """A network with an echo binding on free loopback ports; closed at the end, leaving nothing behind."""
    wanted = [Listener(transport, "127.0.0.1", 0) for transport in transports]
    binding = EchoBinding(*wanted)
    network = AsyncNetwork(clock or LoopClock(), limits=limits, tls=tls, resolver=resolver, lag=lag)
    tasks = asyncio.all_tasks()
    bound = await network.open(binding)
    try:
        yield network, binding, [entry.address for entry in bound]
    finally:
        await asyncio.wait_for(network.close(), PATIENCE)
    assert len(binding.closed) == len(binding.links), "link_closed was not called exactly once for each link"
    assert (network.gate.total, network.gate.unauthenticated, network.links) == (0, 0, 0)
    assert not asyncio.all_tasks() - tasks


_KEY_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


class Ca:
    """A certificate authority for one test session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
        self.certificate = self._build(self.name, self.key, "ca", is_ca=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, *, days: int = 30, algorithm: hashes.SHA256 | hashes.SHA384 | None = None
    ) -> tuple[Path, Path]:
        """Write a certificate for ``name`` (and 127.0.0.1) and its key; gives both paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._build(subject, key, name, days=days, algorithm=algorithm)
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def _build(
        self,
        subject: x509.Name,
        key: CertificateIssuerPrivateKeyTypes,
        host: str,
        *,
        is_ca: bool = False,
        days: int = 30,
        algorithm: hashes.SHA256 | hashes.SHA384 | None = None,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        # Python 3.13's own default context is strict (RFC 5280 sections 4.2.1.1 and 4.2.1.3).
        if is_ca:
            signs = dict.fromkeys(_KEY_USES, False) | {"key_cert_sign": True, "crl_sign": True}
            builder = builder.add_extension(x509.KeyUsage(**signs), critical=True)
        else:
            issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
            builder = builder.add_extension(issuer, critical=False)
            names = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, algorithm or hashes.SHA256())

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.file))
