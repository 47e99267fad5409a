"""Peers that send whatever octets a row wants: XMPP streams at every stage, SIP by UDP and TCP.

Plain sockets on purpose: nothing here knows how to be correct except where a row needs a correct beginning.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import secrets
import socket
import ssl
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.catalogue.harness import PASSWORD, PATIENCE, Target

Stage = Literal["fresh", "tls", "authenticated", "bound"]
STAGES: tuple[Stage, ...] = ("fresh", "tls", "authenticated")
HEADER = (
    b"<?xml version='1.0'?><stream:stream to='a.test' xmlns='jabber:client' "
    b"xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
)


@lru_cache
def _tls_context(ca: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca))


@lru_cache
def _salted(password: str, salt: bytes, iterations: int) -> bytes:
    """The slow half of SCRAM-SHA-256, once a user and server: a thousand attackers sign in in a second."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)


QUESTION = re.compile(rb"<iq type='get' id='(\w+)' from='a\.test' to='[^']*'><ping xmlns='urn:xmpp:ping'/></iq>")


class RawStream:
    """A TCP connection (or TLS over it) from an address of its own.

    Args:
        target: the server.
        via: whose port.
        address: where to call from; None: a fresh one.
    """

    def __init__(
        self, target: Target, via: Literal["xmpp", "sip", "apex", "server", "component"], address: str | None = None
    ) -> None:
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
        self.sock = _tls_context(self._ca).wrap_socket(self.sock, server_hostname="a.test")

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

    def hear(self) -> bool:
        """Read what is there without waiting; False if the server has ended its side."""
        self.sock.setblocking(False)
        try:
            while data := self._read():
                self.heard += data
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        else:
            return False
        finally:
            self.sock.settimeout(PATIENCE)

    def _read(self) -> bytes:
        try:
            return self.sock.recv(65536)
        except ssl.SSLWantReadError:
            raise
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
            return b""

    def half_close(self) -> None:
        """End our side of TCP only, without a word of TLS; what the server still says can be read."""
        with contextlib.suppress(OSError):  # the server was faster
            socket.socket.shutdown(self.sock, socket.SHUT_WR)  # ssl's own would forget that there is TLS

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
        self._unread = b""
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
        self.sign_in_by_scram()
        if stage == "bound":
            self.open()
            self.bind()

    def _read(self) -> bytes:
        """Read, and answer the server's question whether anybody is there (XEP-0199), as every client has to."""
        data = super()._read()
        self._unread += data
        while question := QUESTION.search(self._unread):
            self.send(b"<iq type='result' id='" + question.group(1) + b"'/>")
            self._unread = self._unread[question.end() :]
        self._unread = self._unread[-200:]
        return data

    def open(self) -> bytes:
        """Open the stream; the server's header and features."""
        self.send(HEADER)
        return self.until(rb"</stream:features>")

    def sign_in(self, password: str = PASSWORD) -> None:
        """PLAIN, to its success."""
        self.sasl("auth", b"\0" + self.user.encode() + b"\0" + password.encode(), "PLAIN")
        self.until(rb"<success[^>]*/>")

    def sign_in_by_scram(self, password: str = PASSWORD) -> None:
        """SCRAM-SHA-256, to its success: costs the server no key derivation."""
        assert b"<success" in self.scram(password)

    def scram(
        self, password: str, *, mechanism: str = "SCRAM-SHA-256", gs2: str = "n,,", binding: bytes = b""
    ) -> bytes:
        """One SCRAM exchange (RFC 5802, computed here by its letter); the server's last word.

        Args:
            password: to prove.
            mechanism: with "-PLUS" for channel binding.
            gs2: header with the kind of channel binding.
            binding: its octets.
        """
        bare = f"n={self.user},r={secrets.token_hex(12)}"
        self.sasl("auth", (gs2 + bare).encode(), mechanism)
        answer = self.until(rb"</challenge>|</failure>")
        found = re.search(rb">([^<]*)</challenge>", answer)
        if not found:
            return answer
        challenge = base64.b64decode(found[1]).decode()
        fields = dict(part.split("=", 1) for part in challenge.split(","))
        salted = _salted(password, base64.b64decode(fields["s"]), int(fields["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        head = f"c={base64.b64encode(gs2.encode() + binding).decode()},r={fields['r']}"
        signed = f"{bare},{challenge},{head}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
        self.sasl("response", f"{head},p={proof}".encode())
        return self.until(rb"</success>|</failure>")

    def sasl(self, name: str, data: bytes, mechanism: str = "") -> None:
        """Send an ``auth`` or ``response`` with ``data`` in base64."""
        attribute = f" mechanism='{mechanism}'" if mechanism else ""
        tag = f"<{name} xmlns='urn:ietf:params:xml:ns:xmpp-sasl'{attribute}>".encode()
        self.send(tag + base64.b64encode(data) + f"</{name}>".encode())

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
