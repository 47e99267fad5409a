"""Who watches whom: watcher information (RFC 3857, 3858).

Place on the path: step 5 keeps one ``SubscriptionState`` for each subscription; its notifications to the presentity are made
here (``build_watcherinfo``), and a client reads them with ``WatcherTable``. The table of the figure stands here too, because
the words in the document are its states and events.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from comity.cpim.documents import read_document
from comity.cpim.presence_writer import DECLARATION
from comity.errors import LocalProtocolError, MalformedMessage
from comity.xml import XML_LANG, Element, XmlLimits, serialize

WATCHERINFO_TYPE: Final = "application/watcherinfo+xml"
WATCHERINFO: Final = "urn:ietf:params:xml:ns:watcherinfo"
#: 2,000 watchers of one presentity (reliability.md section 6.2) and a little more.
WATCHER_LIMITS: Final = XmlLimits(octets=1024 * 1024, depth=8, elements=4096, attributes=16, namespaces=32)
_SPACE: Final = " \t\r\n"
_TOKEN = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+")
_NUMBER = re.compile(r"[0-9]{1,20}")
MAX_VERSION: Final = 2**32 - 1


class SubscriptionState(Enum):
    """States of a subscription (RFC 3857 section 4.7.1); init is none, since it is transient."""

    PENDING = "pending"
    ACTIVE = "active"
    WAITING = "waiting"
    TERMINATED = "terminated"


class SubscriptionEvent(Enum):
    """What moves a subscription from one state to the next."""

    SUBSCRIBE = "subscribe"
    APPROVED = "approved"
    DEACTIVATED = "deactivated"
    PROBATION = "probation"
    REJECTED = "rejected"
    TIMEOUT = "timeout"
    GIVEUP = "giveup"
    NORESOURCE = "noresource"


_S, _E = SubscriptionState, SubscriptionEvent

#: Figure 1 of RFC 3857, without the three ways out of init. A pair that is missing changes nothing.
TRANSITIONS: Final[dict[tuple[SubscriptionState, SubscriptionEvent], SubscriptionState]] = {
    (_S.PENDING, _E.APPROVED): _S.ACTIVE,
    (_S.PENDING, _E.TIMEOUT): _S.WAITING,
    (_S.PENDING, _E.NORESOURCE): _S.TERMINATED,
    (_S.PENDING, _E.REJECTED): _S.TERMINATED,
    (_S.PENDING, _E.DEACTIVATED): _S.TERMINATED,
    (_S.PENDING, _E.PROBATION): _S.TERMINATED,
    (_S.PENDING, _E.GIVEUP): _S.TERMINATED,
    (_S.ACTIVE, _E.NORESOURCE): _S.TERMINATED,
    (_S.ACTIVE, _E.REJECTED): _S.TERMINATED,
    (_S.ACTIVE, _E.DEACTIVATED): _S.TERMINATED,
    (_S.ACTIVE, _E.PROBATION): _S.TERMINATED,
    (_S.ACTIVE, _E.TIMEOUT): _S.TERMINATED,
    (_S.WAITING, _E.NORESOURCE): _S.TERMINATED,
    (_S.WAITING, _E.REJECTED): _S.TERMINATED,
    (_S.WAITING, _E.GIVEUP): _S.TERMINATED,
    (_S.WAITING, _E.APPROVED): _S.TERMINATED,
}


@dataclass(frozen=True, slots=True)
class WatcherEntry:
    """One subscription as its presentity sees it (RFC 3858 section 3)."""

    uri: str
    """Of the watcher, authenticated."""
    id: str
    """Of the subscription: a token, unique in all documents of one watcherinfo subscription."""
    state: SubscriptionState
    event: SubscriptionEvent
    """What brought it into that state."""
    display_name: str = ""
    language: str = ""
    """Of the display name."""
    expiration: int | None = None
    """Seconds from now until it ends."""
    duration_subscribed: int | None = None
    """Seconds since it was made."""


@dataclass(frozen=True, slots=True)
class WatcherList:
    """The watchers of one resource."""

    resource: str
    package: str
    watchers: tuple[WatcherEntry, ...]


@dataclass(frozen=True)
class WatcherInfo:
    """An immutable view of a watcherinfo document; made by ``parse`` or ``build_watcherinfo``."""

    raw: bytes
    version: int = field(compare=False)
    is_full: bool = field(compare=False)
    """True for the whole state, False for what changed."""
    lists: tuple[WatcherList, ...] = field(compare=False, repr=False)

    @classmethod
    def parse(cls, raw: bytes, *, charset: str = "", limits: XmlLimits = WATCHER_LIMITS) -> WatcherInfo:
        """Read a document; elements and attributes of unknown namespaces are ignored. Raises MalformedMessage."""
        root = read_document(raw, limits, charset)
        if root.name != _wi("watcherinfo"):
            raise MalformedMessage("the root is not watcherinfo in the namespace of RFC 3858")
        version = _number(root, "version")
        if version is None or version > MAX_VERSION:
            raise MalformedMessage("the version is not a number of 32 bits")
        state = _required(root, "state")
        if state not in ("full", "partial"):
            raise MalformedMessage("the state is neither full nor partial")
        lists = tuple(_list(element) for element in root.find_all(_wi("watcher-list")))
        ids = [entry.id for one in lists for entry in one.watchers]
        if len(set(ids)) != len(ids):
            raise MalformedMessage("two watchers have one id")
        return cls(raw, version, state == "full", lists)


def build_watcherinfo(version: int, lists: Sequence[WatcherList], *, is_full: bool) -> WatcherInfo:
    """Write a document and view it.

    Args:
        version: 0 for the first document of a watcherinfo subscription, then one more for each.
        lists: one per resource.
        is_full: whether it is the whole state.

    Raises:
        LocalProtocolError: the version has come to its end (it does not wrap), an id is no token or stands twice.
    """
    entries = [entry for one in lists for entry in one.watchers]
    if not 0 <= version <= MAX_VERSION:
        raise LocalProtocolError("the version of watcher information is a number of 32 bits")
    if len({entry.id for entry in entries}) != len(entries) or not all(_TOKEN.fullmatch(entry.id) for entry in entries):
        raise LocalProtocolError("the id of a watcher is a token of its own")
    root = Element(_wi("watcherinfo"), {"version": str(version), "state": "full" if is_full else "partial"})
    for one in lists:
        watchers: list[Element | str] = [_watcher(entry) for entry in one.watchers]
        root.append(Element(_wi("watcher-list"), {"resource": one.resource, "package": one.package}, watchers))
    raw = DECLARATION + serialize(root) + b"\r\n"
    return WatcherInfo(raw, version, is_full, tuple(lists))


class Applied(Enum):
    """What became of a document given to a ``WatcherTable``."""

    APPLIED = "applied"
    REFRESH = "refresh"
    """Applied, but a document before it is missing: ask for the whole state."""
    DROPPED = "dropped"
    """Older than what is known, or the same again."""


class WatcherTable:
    """What a watcherinfo subscriber knows (RFC 3858 section 4)."""

    def __init__(self) -> None:
        self.version: int | None = None
        """Of the last document applied; None before the first."""
        self.lists: dict[tuple[str, str], dict[str, WatcherEntry]] = {}
        """By (resource, package), then by id; terminated ones are gone."""

    def apply(self, info: WatcherInfo) -> Applied:
        """Take a document in."""
        if self.version is not None and info.version <= self.version:
            return Applied.DROPPED
        expected = 0 if self.version is None else self.version + 1
        is_whole = info.is_full or info.version == expected
        self.version = info.version
        if info.is_full:
            self.lists = {}
        for one in info.lists:
            rows = self.lists.setdefault((one.resource, one.package), {})
            for entry in one.watchers:
                if entry.state is SubscriptionState.TERMINATED:
                    rows.pop(entry.id, None)
                else:
                    rows[entry.id] = entry
        return Applied.APPLIED if is_whole else Applied.REFRESH


def _wi(local: str) -> str:
    return f"{{{WATCHERINFO}}}{local}"


def _required(element: Element, name: str) -> str:
    value = element.get(name).strip(_SPACE)
    if not value:
        raise MalformedMessage(f"a {element.local} has no {name}")
    return value


def _number(element: Element, name: str) -> int | None:
    text = element.get(name).strip(_SPACE)
    if name in element.attributes and not _NUMBER.fullmatch(text):
        raise MalformedMessage(f"{name} is not a number")
    return int(text) if text else None


def _list(element: Element) -> WatcherList:
    watchers = tuple(_entry(child) for child in element.find_all(_wi("watcher")))
    return WatcherList(_required(element, "resource"), _required(element, "package"), watchers)


def _entry(element: Element) -> WatcherEntry:
    uri, id = element.text.strip(_SPACE), _required(element, "id")
    if not uri:
        raise MalformedMessage("a watcher has no URI")
    if not _TOKEN.fullmatch(id):
        raise MalformedMessage("the id of a watcher is not a token")
    try:
        state = SubscriptionState(_required(element, "status"))
        event = SubscriptionEvent(_required(element, "event"))
    except ValueError:
        raise MalformedMessage("a watcher has a status or event that RFC 3857 does not know") from None
    return WatcherEntry(
        uri,
        id,
        state,
        event,
        element.get("display-name"),
        element.language,
        _number(element, "expiration"),
        _number(element, "duration-subscribed"),
    )


def _watcher(entry: WatcherEntry) -> Element:
    attributes = {"id": entry.id, "status": entry.state.value, "event": entry.event.value}
    if entry.display_name:
        attributes["display-name"] = entry.display_name
        if entry.language:
            attributes[XML_LANG] = entry.language
    for name, seconds in (("expiration", entry.expiration), ("duration-subscribed", entry.duration_subscribed)):
        if seconds is not None:
            attributes[name] = str(max(seconds, 0))
    return Element(_wi("watcher"), attributes, [entry.uri])
