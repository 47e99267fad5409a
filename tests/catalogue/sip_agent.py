"""A SIP user agent over UDP or TCP that is correct up to a row of the catalogue and sends any octets from there.

Written apart from ``comity``: what it sends and expects comes from the RFCs, not from our own code.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from types import TracebackType
from typing import Literal, Self

from tests.catalogue.harness import PATIENCE, Target
from tests.catalogue.raw import RawSipTcp, RawSipUdp, authorization, sip_status

Wire = Literal["udp", "tcp"]
WIRES: tuple[Wire, ...] = ("udp", "tcp")
#: What a phone says of itself; without it a challenge over UDP would be larger than the request (S-28).
PHONE = "User-Agent: Telephone 2.1.4 (catalogue of bad inputs; x86_64-linux-gnu)"
CRLF = b"\r\n"
#: An answer that a busy machine has not given by now is asked for again; longer than RFC 3261's T1 on purpose.
RETRY_SECONDS = 4.0


def header(answer: bytes, name: str, short: str = "") -> str:
    """Value of the first header ``name`` of an answer (or its compact form), "" if absent."""
    names = f"{name}|{short}" if short else name
    found = re.search(rf"\r\n(?:{names})[ \t]*:[ \t]*([^\r]*)".encode(), answer, re.IGNORECASE)
    return found[1].decode() if found else ""


class Agent:
    """One user agent with its socket.

    Args:
        target: the server.
        wire: transport.
        user: who signs its requests.
        address: where to call from; None: a fresh one.
    """

    def __init__(self, target: Target, wire: Wire, user: str = "alice", address: str | None = None) -> None:
        self.wire = wire
        self.user = user
        self.aor = f"sip:{user}@a.test"
        self._peer: RawSipTcp | RawSipUdp = RawSipTcp(target, address) if wire == "tcp" else RawSipUdp(target, address)
        self.address = self._peer.address
        self.port = int(self._peer.sock.getsockname()[1])
        self.contact = f"<sip:{user}@{self.address}:{self.port};transport={wire}>"
        self._challenge = b""
        self._nc = 0

    def build(
        self,
        method: str,
        uri: str,
        *lines: str | bytes,
        body: bytes = b"",
        via: str | None = None,
        from_: str | None = None,
        to: str | None = None,
        call_id: str | None = None,
        cseq: str | None = None,
        length: str | None = "",
    ) -> bytes:
        """A request; ``lines`` are further header lines without CRLF; ``length`` None leaves Content-Length out.

        A list of lines that holds ``Max-Forwards`` or ``User-Agent`` replaces the usual ones.
        """
        token = secrets.token_hex(6)
        names = [(line if isinstance(line, bytes) else line.encode()).partition(b":")[0].lower() for line in lines]
        head: list[str | bytes] = [
            f"{method} {uri} SIP/2.0",
            via or f"Via: SIP/2.0/{self.wire.upper()} {self.address}:{self.port};branch=z9hG4bK{token};rport",
            from_ or f"From: <{self.aor}>;tag=f{token}",
            to or f"To: <{uri}>",
            call_id or f"Call-ID: {token}@example.invalid",
            cseq or f"CSeq: 1 {method}",
        ]
        if b"max-forwards" not in names:
            head.append("Max-Forwards: 70")
        if b"user-agent" not in names:
            head.append(PHONE)
        head += lines
        if length is not None:
            head.append(f"Content-Length: {length or len(body)}")
        return CRLF.join(line if isinstance(line, bytes) else line.encode() for line in head) + CRLF * 2 + body

    def message(self, text: str | bytes, *lines: str, to: str = "sip:bob@a.test", **parts: str) -> bytes:
        """A MESSAGE with a plain text, without credentials."""
        body = text if isinstance(text, bytes) else text.encode()
        kind = () if any(line.lower().startswith("content-type") for line in lines) else ("Content-Type: text/plain",)
        return self.build("MESSAGE", to, *kind, *lines, body=body, **parts)

    def sign(self, request: bytes) -> bytes:
        """The request with credentials; asks for a challenge first if there is none."""
        if not self._challenge:
            self._challenge = self.ask(self.build("REGISTER", "sip:a.test", to=f"To: <{self.aor}>"))
            assert sip_status(self._challenge) == 401, self._challenge
        self._nc += 1
        return self.sign_for(request, self._challenge, self.user, self._nc)

    def challenged(self, answer: bytes) -> None:
        """Answer this challenge from now on."""
        self._challenge, self._nc = answer, 0

    def sign_for(self, request: bytes, challenge: bytes, user: str, nc: int = 1) -> bytes:
        """The request with credentials for one challenge; its branch and CSeq stay."""
        method, uri, _ = request.split(b" ", 2)
        line = authorization(challenge, method.decode(), uri.decode(), user=user, nc=nc)
        head, gap, body = request.partition(CRLF * 2)
        return head + CRLF + line.removesuffix(CRLF) + gap + body

    def register(self, *lines: str, contact: str | None = None) -> bytes:
        """Sign in; the answer."""
        contact = self.contact if contact is None else contact
        request = self.build("REGISTER", "sip:a.test", f"Contact: {contact}", *lines, to=f"To: <{self.aor}>")
        answer = self.ask(self.sign(request))
        assert sip_status(answer) == 200, answer
        return answer

    def send(self, octets: bytes) -> None:
        """Send octets as they are: one datagram, or into the stream."""
        self._peer.send(octets)

    def hear(self) -> bytes:
        """The next message from the server, with its body."""
        if isinstance(self._peer, RawSipUdp):
            return self._peer.receive()
        head = self._peer.until(rb"\r\n\r\n")
        size = int(header(head, "Content-Length", "l") or 0)
        return head + (self._peer.until(rb".{%d}" % size) if size else b"")

    def ask(self, octets: bytes) -> bytes:
        """Send, and the next message from the server; over UDP sent again after a while, as every phone does."""
        self.send(octets)
        if self.wire == "tcp":
            return self.hear()
        self.datagrams.sock.settimeout(RETRY_SECONDS)
        try:
            for _ in range(int(PATIENCE / RETRY_SECONDS)):
                with contextlib.suppress(TimeoutError):
                    return self.hear()
                self.send(octets)
        finally:
            self.datagrams.sock.settimeout(PATIENCE)
        return self.hear()

    def rest(self) -> list[bytes]:
        """Everything the server says until it answers a MESSAGE without credentials sent now: what is not here was not
        said. Requests that need an account are answered in their order."""
        mark = f"mark{secrets.token_hex(8)}"
        self.send(self.message("mark", call_id=f"Call-ID: {mark}"))
        heard: list[bytes] = []
        while mark.encode() not in (message := self.hear()):
            heard.append(message)
        return heard

    def reply(self, request: bytes, status: str = "200 OK", *lines: str) -> None:
        """Answer a request of the server's."""
        kept = [line for line in request.partition(CRLF * 2)[0].split(CRLF)[1:] if _ECHOED.match(line)]
        extra = [line.encode() for line in lines]
        octets = CRLF.join([f"SIP/2.0 {status}".encode(), *kept, *extra, b"Content-Length: 0"]) + CRLF * 2
        self.send(octets)

    @property
    def stream(self) -> RawSipTcp:
        """The TCP connection."""
        assert isinstance(self._peer, RawSipTcp)
        return self._peer

    @property
    def datagrams(self) -> RawSipUdp:
        """The UDP socket."""
        assert isinstance(self._peer, RawSipUdp)
        return self._peer

    def close(self) -> None:
        """Close the socket."""
        self._peer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_ECHOED = re.compile(rb"(?:Via|From|To|Call-ID|CSeq)\s*:", re.IGNORECASE)

__all__ = ["CRLF", "PHONE", "WIRES", "Agent", "Wire", "header"]
