"""The SIP binding with a whole presence service behind it, and phones that publish and watch."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Self

from comity.bindings.base import Peer, Transport
from comity.bindings.sip.binding import SipBinding
from comity.bindings.sip.events import Event, RequestReceived
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.session import SipSession
from comity.cpim.address import Address
from comity.cpim.presence_rules import EVERYTHING, Permissions, SubHandling
from comity.service.interfaces import Origin
from comity.service.maps import LinkMaps
from comity.service.peers import KnownPeers
from comity.service.pipeline import Pipeline
from comity.service.presence.interfaces import ContactItem, Decision
from comity.service.presence.keeping import KeepingLimits
from comity.service.presence.service import AccountPresence
from comity.service.presence.watching import PresenceLimits
from comity.service.routes import StaticRoutes
from comity.store.clock import StoreClock
from comity.store.memory import MemoryStore
from tests.bindings.sip.kit import NEAR_UDP, FakeLink, Phone, World

ALICE, BOB, CAROL = "im:alice@a.test", "im:bob@a.test", "im:carol@a.test"
ADDRESSES = {"alice": "192.0.2.10", "bob": "192.0.2.20", "carol": "192.0.2.30"}
PIDF = "application/pidf+xml"


def pidf(
    word: str = "open", note: str = "", *, entity: str = "pres:bob@a.test", id: str = "a", more: str = ""
) -> bytes:
    """A presence document as a phone writes it."""
    said = f"<note>{note}</note>" if note else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><presence xmlns="urn:ietf:params:xml:ns:pidf" entity="{entity}">'
        f'<tuple id="{id}"><status><basic>{word}</basic></status>{said}</tuple>{more}</presence>'
    ).encode()


#: What the account decides for each way to be seen.
DECISIONS = {
    SubHandling.BLOCK: Decision.REFUSED,
    SubHandling.CONFIRM: Decision.NONE,
    SubHandling.POLITE_BLOCK: Decision.POLITE,
    SubHandling.ALLOW: Decision.ALLOWED,
}


class PresenceWorld(World):
    """A server with presence; ``grant`` says who may see whom."""

    def __init__(
        self, limits: PresenceLimits | None = None, keeping: KeepingLimits | None = None, **options: object
    ) -> None:
        super().__init__(**options)
        self.limits, self.keeping = limits, keeping
        self.store = MemoryStore(StoreClock(lambda: self.clock.when().timestamp(), self.clock.now))
        self.pipeline = self.new_pipeline()

    def new_pipeline(self) -> Pipeline:
        """The service over the store as it is."""
        peers, routes = KnownPeers((self.domain,), self.peers), StaticRoutes(self.routes)
        whole = (self.store, self.accounts, self.clock, self.domain)
        return Pipeline(*whole, peers=peers, routes=routes, maps=LinkMaps(self.maps))

    async def start(self) -> Self:
        """Start, or start again after a crash: the store and the phones stay."""
        self.presence = AccountPresence(
            self.store,
            self.accounts,
            self.clock,
            self.pipeline.admit_subscription,
            hop=self.pipeline.routes.hop,
            limits=self.limits,
            keeping=self.keeping,
        )
        self.pipeline.presence = self.presence
        await self.pipeline.start({"sip": self.binding, "xmpp": self.others})
        await self.presence.start()
        await self.binding.start(self.pipeline, self.network)
        self.udp = FakeLink(self, Peer("udp", NEAR_UDP, ("", 0)), "udp")
        return self

    async def crash(self) -> None:
        """The process ends at once and another one starts over the same store."""
        self.presence.stop()
        self.binding = SipBinding(self.config, random=secrets.token_bytes)  # no branch is used again
        self.pipeline = self.new_pipeline()
        await self.start()
        await self.settle()

    async def grant(self, account: str, watcher: str, granted: Permissions = EVERYTHING) -> None:
        """The account decides about a watcher."""
        who, whom = Address.parse(account), Address.parse(watcher)
        origin = Origin(who, "sip", "127.0.0.1", True)
        item = await self.presence.answer(who, whom, DECISIONS[granted.sub_handling], origin)
        assert isinstance(item, ContactItem), item
        await self.settle()


class Watcher(Phone):
    """A phone that watches and publishes."""

    def __init__(
        self, world: World, user: str, transport: Transport = "udp", *, port: int = 5060, password: str = "secret"
    ) -> None:
        super().__init__(world, user, (ADDRESSES[user], port), transport, password=password)
        self.settings = self.session.settings = type(self.settings)(
            methods=frozenset({"NOTIFY", "MESSAGE", "OPTIONS"}), extensions=frozenset()
        )

        self.hold: list[int] | None = None
        """Ids of requests that are not answered yet, while not None."""

    def _take(self, session: SipSession, event: Event) -> None:
        if self.hold is not None and isinstance(event, RequestReceived):
            self.received.append(event.request)
            self.hold.append(event.id)
        else:
            super()._take(session, event)

    @property
    def contact(self) -> str:
        return f"<{self.uri};transport={self.transport}>"

    async def subscribe(
        self,
        whom: str = "bob",
        expires: int | None = 600,
        *headers: tuple[str, str],
        call_id: str = "",
        uri: str = "",
    ) -> SipResponse:
        """A new subscription (or fetch); the answer. ``headers`` replace those of the same name, "" leaves one out."""
        own = [("Event", "presence"), ("Contact", self.contact), ("Call-ID", call_id or f"w-{self.user}-{whom}")]
        own += [] if expires is None else [("Expires", str(expires))]
        answer = await self.ask(self.request("SUBSCRIBE", uri or f"sip:{whom}@a.test", [*own, *headers]))
        assert answer is not None
        return answer

    async def again(self, first: SipResponse, expires: int = 600, *headers: tuple[str, str]) -> SipResponse:
        """A request in the dialog of an answer."""
        (contact,) = first.contacts
        own = [
            ("To", first.value("to") or ""),
            ("From", first.value("from") or ""),
            ("Call-ID", first.call_id),
            ("Event", "presence"),
            ("Contact", self.contact),
            ("Expires", str(expires)),
        ]
        answer = await self.ask(self.request("SUBSCRIBE", str(contact.uri), [*own, *headers]))
        assert answer is not None
        return answer

    async def publish(
        self,
        body: bytes = b"",
        *headers: tuple[str, str],
        etag: str = "",
        expires: int | None = 600,
        kind: str = PIDF,
        whom: str = "",
    ) -> SipResponse:
        """A PUBLISH; the answer."""
        own = [("Event", "presence"), ("Content-Type", kind if body else ""), ("SIP-If-Match", etag)]
        own += [] if expires is None else [("Expires", str(expires))]
        answer = await self.ask(self.request("PUBLISH", whom or f"sip:{self.user}@a.test", [*own, *headers], body))
        assert answer is not None
        return answer

    def notified(self) -> list[SipRequest]:
        """NOTIFY requests since the last call."""
        taken, self.received = [one for one in self.received if one.method == "NOTIFY"], []
        return taken

    def heard(self) -> list[tuple[str, str]]:
        """(Subscription-State without its seconds, basic status or "") of them."""
        return [(state_of(one), basic_of(one.body)) for one in self.notified()]


def state_of(request: SipRequest) -> str:
    state, _, params = (request.value("subscription-state") or "").partition(";")
    return params.partition("=")[2] if state == "terminated" else state


def basic_of(body: bytes) -> str:
    return "open" if b">open<" in body else "closed" if b">closed<" in body else ""


def codes(answers: Sequence[SipResponse]) -> list[int]:
    return [answer.status_code for answer in answers]
