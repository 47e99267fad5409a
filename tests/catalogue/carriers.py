"""Ways a message/cpim object enters the server: two in XMPP stanzas, SIP by TCP and by UDP; each says how it was answered."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal, Protocol

from tests.catalogue.fleet import pieces, play
from tests.catalogue.harness import PATIENCE, Target
from tests.catalogue.raw import RawXmpp, sip_status
from tests.catalogue.sip_agent import Agent, Wire

Verdict = Literal["accepted", "syntax", "denied", "size", "timestamp"]
#: What each protocol says for a refusal (T1 of conformance.md).
XMPP_WORDS: dict[str, Verdict] = {
    "bad-request": "syntax",
    "forbidden": "denied",
    "policy-violation": "size",
    "not-acceptable": "timestamp",
}
SIP_WORDS: dict[bytes, Verdict] = {
    b"200": "accepted",
    b"202": "accepted",
    b"400": "syntax",
    b"403": "denied",
    b"413": "size",
    b"513": "size",
}
NO_RATES = "user_messages = 100000\nuser_message_burst = 100000\nuser_octets = 67108864\nuser_stanzas = 100000\n"
"""Limits for tests in which one user sends more than any does; rates are not what they are about."""
CPIM = b"Content-Type: message/cpim"
_XML_TEXT = re.compile("[\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")


class Carrier(Protocol):
    """One signed-in connection of alice's."""

    name: str
    cut: int
    """Where the next submissions are cut in two segments; 0: nowhere."""

    def can_hold(self, obj: bytes) -> bool:
        """Whether the protocol can say these octets at all."""

    def submit(self, obj: bytes, to: str = "bob@a.test", kind: bytes = CPIM) -> Verdict:
        """Send an object; ``kind`` is its Content-Type line."""


class ByXmpp:
    """``octets`` (base64) or RFC 3923's ``e2e`` in a stanza; stream management tells when it was taken."""

    def __init__(self, peer: RawXmpp, form: Literal["octets", "e2e"]) -> None:
        self.name: str = form
        self.peer = peer
        self.cut = 0
        self._heard = 0
        peer.send(b"<enable xmlns='urn:xmpp:sm:3'/>")
        peer.until(rb"<enabled[^>]*>")

    def can_hold(self, obj: bytes) -> bool:
        if self.name == "octets":
            return True
        try:
            text = obj.decode("utf-8")
        except UnicodeDecodeError:
            return False
        lines = text.replace("\r\n", "")
        return "\n" not in lines and "\r" not in lines and bool(_XML_TEXT.fullmatch(text))

    def submit(self, obj: bytes, to: str = "bob@a.test", kind: bytes = CPIM) -> Verdict:
        entity = kind + b"\r\n\r\n" + obj
        if self.name == "octets":
            child = b"<octets xmlns='urn:comity:octets:0'>" + base64.b64encode(entity) + b"</octets>"
        else:
            # RFC 3923 section 3.3: the line break after the start of the section and the one before its end are its own.
            text = entity.decode("utf-8").replace("\r\n", "\n").replace("]]>", "]]]]><![CDATA[>")
            child = f"<e2e xmlns='urn:ietf:params:xml:ns:xmpp-e2e'><![CDATA[\n{text}\n]]></e2e>".encode()
        self.cut_send(f"<message to='{to}' id='c'>".encode() + child + b"</message><r xmlns='urn:xmpp:sm:3'/>")
        answer = self.peer.until(rb"<a xmlns='urn:xmpp:sm:3'[^>]*/>")
        errors = re.findall(rb"<message[^>]* type='error'[^>]*>.*?<error[^>]*><([a-z-]+)", answer, re.DOTALL)
        self._heard += len(errors)
        self.peer.send(b"<a xmlns='urn:xmpp:sm:3' h='%d'/>" % self._heard)
        assert len(errors) <= 1, answer
        return XMPP_WORDS[errors[0].decode()] if errors else "accepted"

    def cut_send(self, octets: bytes) -> None:
        play([self.peer], [pieces(octets, self.cut)])


class BySip:
    """MESSAGE with the object as its body."""

    def __init__(self, agent: Agent) -> None:
        self.name: str = agent.wire
        self.agent = agent
        self.cut = 0
        agent.sign(
            agent.build("MESSAGE", "sip:bob@a.test")
        )  # asks for the challenge: now the server has the connection

    def can_hold(self, obj: bytes) -> bool:
        return len(obj) < (48_000 if self.name == "tcp" else 12_000)

    def submit(self, obj: bytes, to: str = "bob@a.test", kind: bytes = CPIM) -> Verdict:
        deadline = time.monotonic() + PATIENCE
        while sip_status(answer := self._ask(obj, to, kind)) == 503:  # a machine that is busy with other things
            assert time.monotonic() < deadline, answer
        assert answer[8:11] in SIP_WORDS, answer
        return SIP_WORDS[answer[8:11]]

    def _ask(self, obj: bytes, to: str, kind: bytes) -> bytes:
        signed = self.agent.sign(self.agent.build("MESSAGE", f"sip:{to}", kind, body=obj))
        if self.cut:
            play([self.agent.stream], [pieces(signed, self.cut)])
        else:
            self.agent.send(signed)
        return self.agent.hear()


@contextmanager
def carriers(target: Target) -> Iterator[list[Carrier]]:
    """All of them, signed in as alice."""
    with ExitStack() as stack:
        found: list[Carrier] = [
            ByXmpp(stack.enter_context(RawXmpp(target, "bound")), form) for form in ("octets", "e2e")
        ]
        wires: tuple[Wire, ...] = ("tcp", "udp")
        found += [BySip(stack.enter_context(Agent(target, wire))) for wire in wires]
        yield found


__all__ = ["CPIM", "NO_RATES", "BySip", "ByXmpp", "Carrier", "Verdict", "carriers"]
