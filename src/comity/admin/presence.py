"""Acts about who may see an account, and its contact list: what an operator, or an owner by the operator's hand, decides.

Place on the path: beside it, under ``commands.py``, which has found the account by then. ``PresenceDesk`` is the presence service
of the running server, so that everything is effective before it is answered; where none runs it is ``StoredPresence``, the
same decisions on the store alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from comity.admin.requests import (
    CommandRefused,
    Contact,
    Decide,
    Decided,
    ListContacts,
    PresenceDefault,
    Request,
    SetPresence,
    ShowWatchers,
    WatcherReport,
    Watching,
)
from comity.config import Config
from comity.cpim.address import Address
from comity.cpim.operations import Response
from comity.errors import AddressError
from comity.service.credentials import FailureGuard, StoreAccounts
from comity.service.interfaces import Origin, Store
from comity.service.presence.documents import DocumentLimits
from comity.service.presence.interfaces import ContactItem, Contacts, Decision, Default, Subscription
from comity.service.presence.keeping import Keeping, KeepingLimits
from comity.service.presence.pairs import ListLimits
from comity.service.presence.subscriptions import forget_stored


class PresenceDesk(Protocol):
    """What the acts need of the presence service (``PresenceService``), and the end of an account."""

    @property
    def contacts(self) -> Contacts: ...

    async def answer(
        self, account: Address, watcher: Address, decision: Decision, origin: Origin
    ) -> ContactItem | Response: ...

    async def decisions(self, account: Address) -> Sequence[ContactItem]: ...

    async def default(self, account: Address) -> Default: ...

    async def set_default(self, account: Address, default: Default | None, origin: Origin) -> Response | None: ...

    def watchers(self, account: Address) -> Sequence[Subscription]: ...

    async def remove(self, account: Address) -> None:
        """The account is removed: so is what it kept, and what others kept about it."""


class StoredPresence:
    """A ``PresenceDesk`` on the store alone: nobody is told, since nobody is there."""

    def __init__(self, store: Store, config: Config) -> None:
        self._store = store
        accounts = StoreAccounts(store, config.server.domains, FailureGuard())
        self.keeping = Keeping(
            store, accounts, self._when, lambda account, watcher: None, limits=keeping_limits(config)
        )

    async def start(self) -> None:
        """Take up what is stored. Raises StoreError."""
        await self.keeping.start()

    @property
    def contacts(self) -> Contacts:
        """See ``PresenceService.contacts``."""
        return self.keeping.contacts

    async def answer(
        self, account: Address, watcher: Address, decision: Decision, origin: Origin
    ) -> ContactItem | Response:
        """See ``PresenceService.answer``; the next start ends what this revokes."""
        return await self.keeping.decisions.answer(account, watcher, decision, origin)

    async def decisions(self, account: Address) -> Sequence[ContactItem]:
        """See ``PresenceService.decisions``."""
        return await self.keeping.decisions.decisions(account)

    async def default(self, account: Address) -> Default:
        """See ``PresenceService.default``."""
        return await self.keeping.decisions.default(account)

    async def set_default(self, account: Address, default: Default | None, origin: Origin) -> Response | None:
        """See ``PresenceService.set_default``."""
        return await self.keeping.decisions.set_default(account, default, origin)

    def watchers(self, account: Address) -> Sequence[Subscription]:
        """Nobody watches while nothing runs."""
        return ()

    async def remove(self, account: Address) -> None:
        """See ``PresenceDesk.remove``."""
        await self.keeping.remove(account)
        await forget_stored(self._store, account)

    def _when(self) -> datetime:
        return datetime.fromtimestamp(self._store.time(), UTC)


def keeping_limits(config: Config) -> KeepingLimits:
    """What the operator configured about contact lists, decisions and documents."""
    limits = config.limits
    return KeepingLimits(
        Default(config.policy.presence_default),
        ListLimits(limits.contact_list, limits.requests, limits.contact_list),
        DocumentLimits(limits.documents, limits.document_octets),
    )


# --- the acts -----------------------------------------------------------------------------------------------------


async def show_watchers(desk: PresenceDesk, account: Address, _: ShowWatchers) -> WatcherReport:
    """Who watches the account now, who asked to, and about whom it decided."""
    default = await desk.default(account)
    watching = [
        Watching(
            _shown(one.watcher),
            one.edge,
            one.state.value,
            iso(one.created),
            None if one.expires is None else iso(one.expires),
        )
        for one in desk.watchers(account)
        if one.package == "presence"
    ]
    watching.sort(key=lambda one: (one.watcher, one.via, one.since))
    return WatcherReport(
        _shown(account), default.value, watching, [_decided(item) for item in await desk.decisions(account)]
    )


async def decide(desk: PresenceDesk, account: Address, request: Decide) -> Decided:
    """Decide about a watcher, durably and at once."""
    decisions = {decision.value: decision for decision in Decision}
    if request.decision not in decisions:
        raise CommandRefused(f"{request.decision!r} is no decision. There is: {', '.join(decisions)}.", 2)
    watcher = read_address(request.watcher)
    done = await desk.answer(account, watcher, decisions[request.decision], _owner(account))
    return _decided(_checked(done))


async def set_presence(desk: PresenceDesk, account: Address, request: SetPresence) -> PresenceDefault:
    """Set or show what a watcher gets about whom the account said nothing."""
    if request.default:
        defaults: dict[str, Default | None] = {default.value: default for default in Default} | {"server": None}
        if request.default not in defaults:
            raise CommandRefused(f"{request.default!r} is not known. There is: {', '.join(defaults)}.", 2)
        _checked(await desk.set_default(account, defaults[request.default], _owner(account)))
    return PresenceDefault(_shown(account), (await desk.default(account)).value)


async def list_contacts(desk: PresenceDesk, account: Address, _: ListContacts) -> list[Contact]:
    """The contact list, as every program of the account sees it."""
    roster = await desk.contacts.roster(account)
    return [
        Contact(_shown(item.contact), item.name, list(item.groups), _subscription(item), item.asks)
        for item in roster.items
    ]


Act = Callable[[PresenceDesk, Address, Any], Awaitable[object]]
ACTS: Final[dict[type[Request], Act]] = {
    ShowWatchers: show_watchers,
    Decide: decide,
    SetPresence: set_presence,
    ListContacts: list_contacts,
}


# --- helpers --------------------------------------------------------------------------------------------------------


def read_address(text: str, like: str = "bob@example.org") -> Address:
    """Read the address of somebody, here or elsewhere, as people write it: ``bob@example.org`` or a URI."""
    try:
        if text.partition(":")[0].lower() in ("im", "pres", "sip", "sips", "xmpp"):
            return Address.from_any(text).folded()
        local, _, domain = text.rpartition("@")
        return Address.im(local, domain).folded()
    except AddressError as error:
        raise CommandRefused(f"{error}. Write it as {like}.", 2) from error


def iso(seconds: float) -> str:
    """Store time as ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _owner(account: Address) -> Origin:
    """The operator acts for the account; who may ask here is known to the kernel (``control.py``)."""
    return Origin(account, "admin", "", True)


def _checked(answer: ContactItem | Response | None) -> Any:
    if isinstance(answer, Response):
        raise CommandRefused(answer.text or "It was refused.")
    return answer


def _decided(item: ContactItem) -> Decided:
    asked = None if item.ask is None else iso(item.ask.when)
    text = "" if item.ask is None else item.ask.text
    return Decided(_shown(item.contact), item.decision.value, item.is_preapproved, asked, text)


def _subscription(item: ContactItem) -> str:
    """In the words of RFC 6121 section 2.1.2.5."""
    is_from = item.decision is Decision.ALLOWED
    return "both" if item.sees and is_from else "to" if item.sees else "from" if is_from else "none"


def _shown(address: Address) -> str:
    return address.uri.removeprefix("im:")
