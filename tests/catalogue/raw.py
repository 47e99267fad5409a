"""Peers that send whatever octets a row wants: XMPP streams at every stage, SIP by UDP and TCP.

Plain sockets on purpose: nothing here knows how to be correct except where a row needs a correct beginning.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import socket
import ssl
from types import TracebackType
from typing import Literal, Self

from tests.catalogue.harness import PASSWORD, PATIENCE, Target

Stage = Literal["fresh", "tls", "authenticated", "bound"]
STAGES: tuple[Stage, ...] = ("fresh", "tls", "authenticated")
HEADER = (
    b"<?xml version='1.0'?><stream:stream to='a.test' xmlns='jabber:client' "
    b"xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
)


class RawStream:
    """A TCP connection (or TLS over it) from an address of its own.

    Args:
        target: the server.
        via: whose port.
        address: where to call from; None: a fresh one.
    """

    def __init__(self, target: Target, via: Literal["xmpp", "sip"], address: str | None = None) -> None:
        self.address = address or target.address()
        self.sock: socket.socket | ssl.SSLSocket = socket.create_connection(
            target.server.port(via, "tcp"), PATIENCE, (self.address, 0)
        )
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ca = target.server.directory / "data" / "tls" / "ca.pem"
        self.heard = b""
        """All octets received that no ``until`` has taken."""

    def start_tls(self) -> None:
        """TLS on this connection."""
        context = ssl.create_default_context(cafile=str(self._ca))
        self.sock = context.wrap_socket(self.sock, server_hostname="a.test")

    def send(self, octets: bytes) -> None:
        """Send; a connection the server has closed already is no error, what it said is still to be read."""
        try:
            self.sock.sendall(octets)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            return

    def send_pieces(self, octets: bytes, size: int = 1) -> None:
        """The same in segments of ``size`` octets."""
        for start in range(0, len(octets), size):
            self.send(octets[start : start + size])

    def until(self, pattern: bytes) -> bytes:
        """Read until ``pattern`` (a regular expression) matches; everything up to its end."""
        while (match := re.search(pattern, self.heard, re.DOTALL)) is None:
            data = self._read()
            assert data, f"closed before {pattern!r}: {self.heard[-2000:]!r}"
            self.heard += data
        taken, self.heard = self.heard[: match.end()], self.heard[match.end() :]
        return taken

    def until_closed(self) -> bytes:
        """Read to the end; all that came. TimeoutError if the server keeps the connection."""
        while data := self._read():
            self.heard += data
        taken, self.heard = self.heard, b""
        return taken

    def _read(self) -> bytes:
        try:
            return self.sock.recv(65536)
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
            return b""

    def close(self) -> None:
        """Close at once."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RawXmpp(RawStream):
    """An XMPP client that is correct up to a stage and says what it is told from there.

    Args:
        target: the server.
        stage: how far to go: ``fresh`` (connected), ``tls``, ``authenticated`` (stream not opened anew), ``bound``.
        user: who signs in.
        address: where to call from; None: a fresh one.
    """

    def __init__(self, target: Target, stage: Stage = "fresh", user: str = "alice", address: str | None = None) -> None:
        super().__init__(target, "xmpp", address)
        self.user = user
        self.jid = ""
        if stage == "fresh":
            return
        self.open()
        self.send(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        self.until(rb"<proceed[^>]*/>")
        self.start_tls()
        if stage == "tls":
            return
        self.open()
        self.sign_in()
        if stage == "bound":
            self.open()
            self.bind()

    def open(self) -> bytes:
        """Open the stream; the server's header and features."""
        self.send(HEADER)
        return self.until(rb"</stream:features>")

    def sign_in(self, password: str = PASSWORD) -> None:
        """PLAIN, to its success."""
        response = base64.b64encode(b"\0" + self.user.encode() + b"\0" + password.encode())
        self.send(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + response + b"</auth>")
        self.until(rb"<success[^>]*/>")

    def bind(self, resource: str = "") -> None:
        """Bind a resource (a random one if none is given); no presence is sent."""
        name = resource or secrets.token_hex(4)
        self.send(
            b"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
            b"<resource>" + name.encode() + b"</resource></bind></iq>"
        )
        answer = self.until(rb"</iq>")
        found = re.search(rb"<jid>([^<]*)</jid>", answer)
        assert found, answer
        self.jid = found[1].decode()


class RawSipTcp(RawStream):
    """A SIP user agent on a TCP connection."""

    def __init__(self, target: Target, address: str | None = None) -> None:
        super().__init__(target, "sip", address)


class RawSipUdp:
    """A SIP user agent on a UDP socket of an address of its own."""

    def __init__(self, target: Target, address: str | None = None) -> None:
        self.address = address or target.address()
        self.server = target.server.port("sip", "udp")
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((self.address, 0))
        self.sock.settimeout(PATIENCE)

    @property
    def port(self) -> int:
        """Where it hears."""
        return int(self.sock.getsockname()[1])

    def send(self, octets: bytes) -> None:
        """One datagram."""
        self.sock.sendto(octets, self.server)

    def receive(self) -> bytes:
        """The next datagram. TimeoutError if none comes."""
        return self.sock.recv(65536)

    def all_until(self, marker: bytes) -> list[bytes]:
        """Datagrams up to the one that contains ``marker``: send a request whose answer holds it last, and what is
        not among them was not sent. Use this, not a time-out, to show that nothing was answered."""
        heard: list[bytes] = []
        while marker not in (data := self.receive()):
            heard.append(data)
        return heard

    def close(self) -> None:
        """Close."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def sip_status(answer: bytes) -> int:
    """Status code of a response's octets."""
    found = re.match(rb"SIP/2\.0 (\d{3}) ", answer)
    assert found, answer[:200]
    return int(found[1])


def authorization(
    answer: bytes, method: str, uri: str, *, user: str = "alice", password: str = PASSWORD, nc: int = 1
) -> bytes:
    """The Authorization header line (with CRLF) for the first challenge of ``answer`` (the octets of a 401).

    Computed here by the letter of RFC 7616 and not by our own code.
    """
    found = re.search(rb"\r\nWWW-Authenticate: *Digest ([^\r]*)", answer, re.IGNORECASE)
    assert found, answer
    challenge = dict(re.findall(r'([a-z]+)="?([^",]*)"?', found[1].decode(), re.IGNORECASE))
    algorithm = challenge.get("algorithm", "MD5")
    digest = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}[algorithm]

    def h(*parts: str) -> str:
        return digest(":".join(parts).encode()).hexdigest()

    realm, nonce, cnonce = challenge["realm"], challenge["nonce"], "0a4f113b"
    response = h(h(user, realm, password), nonce, f"{nc:08x}", cnonce, "auth", h(method, uri))
    return (
        f'Authorization: Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}", algorithm={algorithm}, '
        f'qop=auth, nc={nc:08x}, cnonce="{cnonce}", response="{response}"\r\n'
    ).encode()


__all__ = ["HEADER", "STAGES", "RawSipTcp", "RawSipUdp", "RawStream", "RawXmpp", "Stage", "authorization", "sip_status"]
