"""A house with everything XCAP needs: a real store, accounts, contact lists and presence; over real HTTPS if wanted."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from comity.bindings.base import Listener
from comity.cpim.address import Address
from comity.cpim.operations import Response, SubscribeOperation
from comity.net.driver import LoopClock
from comity.net.https import HttpsServer
from comity.net.limits import NetLimits
from comity.net.network import AsyncNetwork
from comity.net.tls import TlsContexts
from comity.service.credentials import FailureGuard, StoreAccounts, derive_ha1, encode_ha1
from comity.service.interfaces import Origin, Put, Store
from comity.service.presence.interfaces import Granted, Terms
from comity.service.presence.service import AccountPresence
from comity.store.memory import MemoryStore
from comity.testing.clock import FakeClock
from comity.testing.presence import RecordingEdge
from comity.xcap.exchange import Answer, Request, target_of, user_of
from comity.xcap.handler import XcapHandler
from comity.xcap.resources import Resources
from comity.xcap.standing import Standing
from tests.net.kit import Ca

DOMAIN = "a.test"
ALICE, BOB, CAROL = (Address.parse(f"im:{name}@{DOMAIN}") for name in ("alice", "bob", "carol"))
TYPES = {
    "resource-lists": "application/resource-lists+xml",
    "rls-services": "application/rls-services+xml",
    "pres-rules": "application/auth-policy+xml",
    "org.openmobilealliance.pres-rules": "application/auth-policy+xml",
    "pidf-manipulation": "application/pidf+xml",
}
ELEMENT, ATTRIBUTE = "application/xcap-el+xml", "application/xcap-att+xml"


def password(name: str) -> str:
    return f"{name} likes long passphrases"


def path(auid: str, name: str = "alice", node: str = "", document: str = "index") -> str:
    """The path of a document of one of our people, or of a part of it."""
    return f"/{auid}/users/sip:{name}@{DOMAIN}/{document}" + (f"/~~/{quote(node)}" if node else "")


def lists(inside: str) -> bytes:
    return f"<resource-lists xmlns='urn:ietf:params:xml:ns:resource-lists'>{inside}</resource-lists>".encode()


@dataclass
class House:
    """Alice, Bob and Carol of a.test."""

    store: Store = field(default_factory=MemoryStore)
    clock: FakeClock = field(default_factory=FakeClock)
    most_contacts: int = 2000
    guard: FailureGuard = field(default_factory=FailureGuard)

    async def start(self) -> House:
        """Open the accounts and take up what is stored."""
        for name in ("alice", "bob", "carol"):
            address = Address.parse(f"im:{name}@{DOMAIN}")
            ha1 = encode_ha1(derive_ha1(address, password(name)))
            await self.store.commit([Put("account", address.key, b"{}"), Put("ha1", address.key, ha1)])
        self.accounts = StoreAccounts(self.store, [DOMAIN], self.guard)
        self.presence = AccountPresence(self.store, self.accounts, self.clock, self._admit)
        self.keeping = self.presence.keeping
        await self.presence.start()
        self.edge = RecordingEdge(self.clock)
        self.presence.attach("sip", self.edge)
        self.resources = Resources(self.presence, self.accounts, Standing(self.store), self.clock, self.most_contacts)
        await self.resources.start()
        return self

    async def _admit(self, operation: SubscribeOperation, origin: Origin) -> Response | None:
        return None

    def origin(self, address: Address) -> Origin:
        return Origin(address, "xmpp", "192.0.2.1", True)

    async def watch(self, watcher: Address, target: Address) -> Granted | Response:
        """Subscribe by SIP; begun."""
        who, whom = watcher.with_scheme("pres"), target.with_scheme("pres")
        operation = SubscribeOperation(who, whom, f"{who.local}-{whom.local}", "t1", 600)
        answer = await self.presence.subscribe(operation, self.origin(watcher), Terms("sip"))
        if isinstance(answer, Granted):
            self.presence.begin(answer.subscription)
        return answer

    async def ask(
        self,
        method: str,
        raw: str,
        body: bytes = b"",
        content_type: str = "",
        *,
        user: Address = ALICE,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> Answer:
        """One request of an account, below HTTP."""
        target = target_of(raw)
        if method == "PUT" and not content_type:
            content_type = TYPES.get(target.auid, "") if target.node is None else ELEMENT
        owner = None if target.user is None else user_of(target.user, DOMAIN)
        request = Request(method, target, user, owner, "192.0.2.1", content_type, if_match, if_none_match, body)
        return await self.resources.answer(request)

    async def contacts(self, address: Address = ALICE) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Name and groups by address, as XMPP sees it."""
        roster = await self.keeping.contacts.roster(address)
        return {item.contact.local: (item.name, item.groups) for item in roster.items}


@dataclass
class Served:
    """A house that is open by HTTPS."""

    house: House
    https: HttpsServer
    network: AsyncNetwork
    ca: Ca
    port: int

    @property
    def root(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def client_context(self) -> ssl.SSLContext:
        return self.ca.client()


@asynccontextmanager
async def serving(
    folder: Path, house: House | None = None, limits: NetLimits | None = None, *, is_md5_offered: bool = True
) -> AsyncIterator[Served]:
    """Serve on loopback with a certificate for 127.0.0.1."""
    house = house or await House().start()
    ca = Ca(folder)
    clock = LoopClock()
    network = AsyncNetwork(clock, limits=limits, tls=TlsContexts(*ca.issue("xcap.a.test")))
    handler = XcapHandler(house.resources, house.accounts, [DOMAIN], clock, is_md5_offered=is_md5_offered)
    https = HttpsServer(network, handler.handle, clock)
    await https.open([Listener("tls", "127.0.0.1", 0)])
    try:
        yield Served(house, https, network, ca, https.bound[0].address[1])
    finally:
        await https.close()
        await network.close()
