"""People who watch and are watched by APEX: applications written from RFC 3340 and RFC 3343 with nothing of ours but sockets."""

from __future__ import annotations

import re
import secrets
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl, quote
from xml.sax.saxutils import quoteattr

from tests.interop.apex_peer import Application, Data
from tests.paths.kit import PASSWORD
from tests.paths.presence_people import House, Notice, Person, State

SERVICE: Final = "apex=presence@a.test"
SHOWN: Final = {"away": "away", "xa": "away", "dnd": "dnd", "chat": "open"}


class ApexPerson(Person):
    """An application attached as its account, or as ``resource`` of it."""

    via = "apex"

    def __init__(self, house: House, name: str, resource: str = "") -> None:
        super().__init__(house, name)
        host, port = house.port("apex", "tcp")
        self.application = Application(host, port, source=house.address())
        # Operations outlive the session: their numbers must not be used again (RFC 3340 section 6.1.1).
        self.application._trans_id = secrets.randbelow(2**30)
        self.application.sign_in(self.address, PASSWORD)
        self.endpoint = f"{name}/{resource}@a.test" if resource else self.address
        self.application.attach(self.endpoint)
        self.watches: dict[int, str] = {}
        """Whom a subscribe is about, by its transaction."""
        self.notified: list[tuple[str, str]] = []
        """(subscriber, action) of what was told of one's watchers."""
        self._replies: dict[int, int] = {}

    def operate(self, element: str, number: int) -> int:
        """Say something to the service; the code of its reply."""
        self.say(element)
        while number not in self._replies:
            self._take(self.application.receive())
        return self._replies.pop(number)

    def say(self, element: str) -> None:
        """Say something to the service that is not answered by a reply."""
        self.application.data(self.endpoint, SERVICE, inline=element)

    # --- the presentity's side

    def tell(self, state: State, note: str = "") -> None:
        stamp = self.read().get("lastUpdate", "")
        number = self.application.next_id()
        now = datetime.now(UTC)
        until = now - timedelta(seconds=1) if state == "closed" else now + timedelta(minutes=10)
        said = ([f"show={state}"] if state in ("away", "dnd") else []) + (
            [f"note={quote(note, safe='')}"] if note else []
        )
        info = f" tupleInfo={quoteattr('urn:comity:tuple:0?=' + '&'.join(said))}" if said else ""
        entry = f"<tuple destination='apex:{self.endpoint}' availableUntil='{until.isoformat()}'{info} />"
        code = self.operate(
            f"<publish publisher='{self.address}' transID='{number}' timeStamp='{now.isoformat()}'>"
            f"<presence publisher='{self.address}' lastUpdate='{stamp}'>{entry}</presence></publish>",
            number,
        )
        assert code == 250, code

    def read(self) -> ElementTree.Element:
        """One's own presence entry, by a poll."""
        number = self.application.next_id()
        self.say(f"<subscribe publisher='{self.address}' duration='0' transID='{number}' />")
        while True:
            told = self._take(self.application.receive())
            if told is not None and told.tag == "publish" and told.get("transID") == str(number):
                presence = told.find("presence")
                assert presence is not None
                return presence

    def answer(self, who: str, granted: bool) -> None:
        """APEX has no words for it: another device of the account does."""
        (self.house.allow if granted else self.house.refuse)(self.name, who)

    # --- the watcher's side

    def watch(self, who: str) -> bytes:
        number = self.application.next_id()
        self.watches[number] = who
        self.say(f"<subscribe publisher='{who}@a.test' duration='600' transID='{number}' />")
        return b""

    def watch_watchers(self) -> None:
        """Want to know who watches one; back when that stands."""
        number = self.application.next_id()
        assert self.operate(f"<watch publisher='{self.address}' duration='600' transID='{number}' />", number) == 250

    def leave(self, who: str) -> None:
        number = max(number for number, about in self.watches.items() if about == who)
        assert self.operate(f"<terminate transID='{number}' />", number) == 250

    # --- what is heard

    def listen(self) -> Notice:
        before = len(self.heard)
        while len(self.heard) == before:
            self._take(self.application.receive())
        return self.heard[-1]

    def heard_until_now(self) -> list[Notice]:
        before = len(self.heard)
        for _ in range(2):  # what waited for an ok of ours is said after the first
            number = self.application.next_id()
            assert self.operate(f"<terminate transID='{number}' />", number) == 550
        return self.heard[before:]

    def _take(self, data: Data) -> ElementTree.Element | None:
        assert data.originator == SERVICE, data.originator
        assert data.inline is not None
        (element,) = data.inline
        number = int(element.get("transID", "0"))
        if element.tag == "reply":
            self._replies[number] = int(element.get("code", "0"))
        elif element.tag == "notify":
            self.notified.append((element.get("subscriber", ""), element.get("action", "subscribe")))
        elif (who := self.watches.get(number)) is not None:
            octets = ElementTree.tostring(element)
            if element.tag == "terminate":
                self.heard.append(Notice(who, "ended", octets=octets))
            else:
                self.heard.append(Notice(who, *read_entry(element), octets=octets))
        return element

    def close(self) -> None:
        self.application.session.hang_up()


def read_entry(publish: ElementTree.Element) -> tuple[State, str]:
    """State and note of a presence entry, by a reader that is not ours."""
    now = datetime.now(UTC)
    shown: list[dict[str, str]] = []
    for one in publish.iter("tuple"):
        if datetime.fromisoformat(one.get("availableUntil", "")) > now:
            shown.append(dict(parse_qsl(re.sub(r"^.*?(\?=|$)", "", one.get("tupleInfo", "")))))
    if not shown:
        return "closed", ""
    states = [SHOWN.get(one.get("show", ""), "open") for one in shown]
    note = next((one["note"] for one in shown if "note" in one), "")
    return next((state for state in ("dnd", "away") if state in states), "open"), note
