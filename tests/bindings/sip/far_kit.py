"""Presence servers of other domains on the test's wires: they take SUBSCRIBE and send NOTIFY as the test says."""

from __future__ import annotations

from dataclasses import dataclass, field

from comity.bindings.base import HostPort, Transport
from comity.bindings.sip.events import Event, RequestReceived
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.session import SipSession
from tests.bindings.sip.kit import Phone, World
from tests.bindings.sip.presence_kit import PIDF, pidf

FAR: HostPort = ("198.51.100.7", 5060)
ROMEO_PIDF = "pres:romeo@b.test"


@dataclass
class Asked:
    """A SUBSCRIBE that came, and the dialog it made."""

    request: SipRequest
    session: SipSession
    tag: str
    cseq: int = 0
    answers: list[int] = field(default_factory=list)
    """What our NOTIFY requests were answered."""

    @property
    def expires(self) -> int:
        return self.request.expires or 0

    @property
    def watcher(self) -> str:
        return str(self.request.from_.uri)


class FarServer(Phone):
    """The presence server of b.test, which is dialled over TCP.

    Args:
        says: status codes for the next SUBSCRIBE requests, with headers; 200 when empty, 0 to stay silent.
    """

    def __init__(self, world: World, address: HostPort = FAR, transport: Transport = "tcp", domain: str = "b.test"):
        super().__init__(world, "romeo", address, transport, names=(domain,) if transport == "tls" else ())
        self.domain = domain
        self.settings = self.session.settings = type(self.settings)(
            methods=frozenset({"NOTIFY", "SUBSCRIBE", "OPTIONS"}), extensions=frozenset()
        )
        world.listening[address] = self
        self.says: list[tuple[int, tuple[tuple[str, str], ...]]] = []
        self.asked: list[Asked] = []
        self.total = 0
        self.granted: int | None = None
        """Seconds granted; as asked if None."""
        self.reply: tuple[str, bytes] | None = None
        """Subscription-State and body of a NOTIFY that follows each 200 at once."""
        self._dialogs: dict[str, Asked] = {}
        self._sent: dict[str, Asked] = {}

    def _take(self, session: SipSession, event: Event) -> None:
        if isinstance(event, RequestReceived) and event.request.method == "SUBSCRIBE":
            self._subscribed(session, event.id, event.request)
        else:
            super()._take(session, event)

    def _subscribed(self, session: SipSession, id: int, request: SipRequest) -> None:
        self.total += 1
        known = self._dialogs.get(request.call_id)
        asked = Asked(request, session, session.local_tag(request) if known is None else known.tag)
        asked.cseq = 0 if known is None else known.cseq
        self._dialogs[request.call_id] = asked
        self.asked.append(asked)
        code, headers = self.says.pop(0) if self.says else (200, ())
        if not code:
            return
        own: tuple[tuple[str, str], ...] = ()
        if code == 200:
            expires = min(asked.expires, self.granted or asked.expires)
            own = (("Expires", str(expires)), ("Contact", f"<sip:romeo@{self.address[0]}:5077;gr>"))
        session.respond(id, code, self.world.clock.now(), headers=[*own, *headers])
        if code == 200 and self.reply is not None:
            state, body = self.reply
            if not asked.expires:
                state = "terminated;reason=timeout"
            self.send_notify(asked, state, body)

    def taken(self) -> list[Asked]:
        """What was asked since the last call."""
        asked, self.asked = self.asked, []
        return asked

    def written(self, asked: Asked, state: str, body: bytes, *changes: tuple[str, str]) -> SipRequest:
        """A NOTIFY in a dialog; ``changes`` replace headers, "" leaves one out."""
        asked.cseq += 1
        headers = {
            "Max-Forwards": "70",
            "From": f"<{asked.request.to.uri}>;tag={asked.tag}",
            "To": asked.request.value("from") or "",
            "Call-ID": asked.request.call_id,
            "CSeq": f"{asked.cseq} NOTIFY",
            "Contact": f"<sip:romeo@{self.address[0]}:5077;gr>",
            "Event": "presence",
            "Subscription-State": state,
            "Content-Type": PIDF if body else "",
            **dict(changes),
        }
        target = str(asked.request.contacts[0].uri)
        return SipRequest("NOTIFY", target, [(name, value) for name, value in headers.items() if value], body)

    def send_notify(self, asked: Asked, state: str, body: bytes, *changes: tuple[str, str]) -> str:
        """Send it down the connection the SUBSCRIBE came by."""
        address = None if asked.session.transport != "udp" else ("192.0.2.1", 5060)
        return asked.session.send_request(self.written(asked, state, body, *changes), self.world.clock.now(), address)

    async def notify(
        self, asked: Asked, state: str = "active;expires=3600", body: bytes = b"", *changes: tuple[str, str]
    ) -> SipResponse:
        """A NOTIFY; the answer."""
        id = self.send_notify(asked, state, body, *changes)
        await self.world.settle()
        return self.responses[id]


def romeo(word: str = "open", note: str = "", *, entity: str = ROMEO_PIDF) -> bytes:
    """What Romeo's phone says."""
    return pidf(word, note, entity=entity)
