"""People who watch and are watched, by SIP and by XMPP, written from the RFCs with nothing of ours but sockets.

Each has the same verbs, so that a story is told once for every pair of protocols. Nothing waits for a time to pass: what
has not come is shown by a question that the server answers after it (``heard_until_now``).
"""

from __future__ import annotations

import itertools
import re
import secrets
import xml.etree.ElementTree as ElementTree
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.catalogue.raw import RawXmpp, sip_status
from tests.catalogue.sip_agent import CRLF, Agent, Wire, header
from tests.paths.kit import PASSWORD, ServerProcess, Via

State = Literal["open", "away", "dnd", "closed"]

PIDF = "{urn:ietf:params:xml:ns:pidf}"
RPID = "{urn:ietf:params:xml:ns:pidf:rpid}"
DATA_MODEL = "{urn:ietf:params:xml:ns:pidf:data-model}"
WATCHER_INFO = "(watchers)"
"""Whom a notification about one's own watchers is about."""
ACTIVITY = {"away": "<rpid:away/>", "dnd": "<rpid:busy/>"}
DOCUMENT = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<presence xmlns="urn:ietf:params:xml:ns:pidf" '
    'xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid" '
    'entity="pres:{who}"><tuple id="{id}"><status><basic>{basic}</basic></status>{note}</tuple>'
    '<dm:person id="p{id}"><rpid:activities>{activity}</rpid:activities></dm:person></presence>'
)


BLOCK = "<iq type='set' id='block'><block xmlns='urn:xmpp:blocking'><item jid='{who}@a.test'/></block></iq>"


@dataclass(frozen=True, slots=True)
class Notice:
    """What somebody was told about another."""

    who: str
    state: State | Literal["pending", "ended", "asked", "granted", "refused", "nothing"]
    note: str = ""
    octets: bytes = b""
    """The stanza or the request as it came."""


class House(ServerProcess):
    """A server, its people, and addresses to call from."""

    def __init__(self, directory: Path, limits: str = "", policy: str = "") -> None:
        self.program = "comity"
        """The module to run; a sabotaged build in its place."""
        super().__init__(directory, limits)
        if policy:
            text = self.config.read_text(encoding="utf-8")
            self.config.write_text(text + f"[policy]\n{policy}\n", encoding="utf-8")
        self._numbers = itertools.count(1)

    def start(self, failpoint: str = "", program: str = "") -> None:
        """Start it and wait for its ready line."""
        super().start(failpoint, program or self.program)

    def allow(self, account: str, who: str) -> None:
        """Let ``who`` see the account, asked or not."""
        with XmppPerson(self, account) as device:
            device.answer(who, granted=True)

    def refuse(self, account: str, who: str) -> None:
        """Do not, or no longer."""
        with XmppPerson(self, account) as device:
            device.answer(who, granted=False)

    def block(self, account: str, who: str) -> None:
        """Nothing at all between the two (XEP-0191): ``who`` sees somebody who is away."""
        self.decide(account, BLOCK.format(who=who))

    @property
    def server(self) -> ServerProcess:
        """For the raw peers of the catalogue, which ask a target for it."""
        return self

    def address(self) -> str:
        """A loopback address nobody else calls from."""
        number = next(self._numbers)
        return f"127.{1 + number // 250 % 250}.{1 + number % 250}.2"

    def account(self, name: str) -> str:
        """A new account; its local part."""
        local = f"{name}{next(self._numbers)}"
        self.run("account", "add", f"{local}@a.test", "--password-stdin", "-c", str(self.config), text=PASSWORD)
        return local

    def person(self, via: Via | Literal["apex"], name: str) -> Person:
        """A device of an account that is there."""
        if via == "apex":
            from tests.paths.apex_person import ApexPerson  # which is made of what stands here

            return ApexPerson(self, name)
        return SipPerson(self, name) if via == "sip" else XmppPerson(self, name)

    def decide(self, account: str, *stanzas: str) -> None:
        """What an XMPP device of the account that shows no presence says; back when the server has done it."""
        with XmppPerson(self, account) as device:
            device.decide(*stanzas)


class Person(ABC):
    """One device of a person."""

    via: Via | Literal["apex"]

    def __init__(self, house: House, name: str) -> None:
        self.house = house
        self.name = name
        self.address = f"{name}@a.test"
        self.heard: list[Notice] = []
        """All that was told about anybody's presence, in order."""

    @abstractmethod
    def tell(self, state: State, note: str = "") -> None:
        """Say how one is; "closed" is signing out."""

    @abstractmethod
    def watch(self, who: str) -> bytes:
        """Ask to see ``who``; the answer, where the protocol has one."""

    @abstractmethod
    def leave(self, who: str) -> None:
        """No longer want to see ``who``; back when the server has acknowledged that."""

    @abstractmethod
    def answer(self, who: str, granted: bool) -> None:
        """Decide about ``who``; back when it is durable."""

    @abstractmethod
    def listen(self) -> Notice:
        """Wait for the next that is told."""

    @abstractmethod
    def heard_until_now(self) -> list[Notice]:
        """All that was told since the last look, up to the answer to a question asked now."""

    @abstractmethod
    def close(self) -> None:
        """Cut the connection, without a word."""

    def sees(self, who: str, state: str, note: str | None = None) -> Notice:
        """Wait until told so about ``who``; what comes about it before is passed over."""
        while True:
            notice = self.listen()
            if notice.who == who and notice.state == state and note in (None, notice.note):
                return notice

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class XmppPerson(Person):
    """A stream; presence is said from the first ``tell``."""

    via = "xmpp"

    def __init__(self, house: House, name: str) -> None:
        super().__init__(house, name)
        self.stream = RawXmpp(house, "bound", name)  # type: ignore[arg-type]  # a House is what it needs of a Target
        self._numbers = itertools.count(1)
        self._is_there = False
        self._pushed: list[str] = []
        """Bare names in the roster pushes that came."""
        self.ask("get", "<query xmlns='jabber:iq:roster'/>")

    def tell(self, state: State, note: str = "") -> None:
        if state == "closed":
            self._say("<presence type='unavailable'/>")
            self._is_there = False
            self.heard_until_now()
            return
        show = "" if state == "open" else f"<show>{state}</show>"
        self._say(f"<presence>{show}{f'<status>{escaped(note)}</status>' if note else ''}</presence>")
        self._is_there = True

    def watch(self, who: str) -> bytes:
        if not self._is_there:
            self.tell("open")
        self._say(f"<presence type='subscribe' to='{who}@a.test'/>")
        return b""

    def leave(self, who: str) -> None:
        self._and_pushed(f"<presence type='unsubscribe' to='{who}@a.test'/>", who)

    def answer(self, who: str, granted: bool) -> None:
        stanza = f"<presence type='{'subscribed' if granted else 'unsubscribed'}' to='{who}@a.test'/>"
        if granted != self._lets_see(who):
            self._and_pushed(stanza, who)
        else:  # nothing changes in the roster
            self.decide(stanza)

    def _lets_see(self, who: str) -> bool:
        roster = ElementTree.fromstring(self.ask("get", "<query xmlns='jabber:iq:roster'/>"))
        items = [item for item in roster.iter("{jabber:iq:roster}item") if item.get("jid") == f"{who}@a.test"]
        return any(item.get("subscription") in ("from", "both") or item.get("approved") for item in items)

    def _and_pushed(self, stanza: str, who: str) -> None:
        """Say it and wait for the roster push: the acknowledgement a client has of what it decided."""
        before = self._pushed.count(who)
        self._say(stanza)
        while self._pushed.count(who) == before:
            self._take(self._stanza())

    def ask(self, kind: Literal["get", "set"], child: str) -> bytes:
        """An iq to the server; its answer. Presence that comes before it is kept."""
        id = f"q{next(self._numbers)}"
        self._say(f"<iq type='{kind}' id='{id}'>{child}</iq>")
        while True:
            stanza = self._stanza()
            if stanza.startswith(b"<iq") and re.search(rb"\bid=['\"]" + id.encode() + rb"['\"]", stanza):
                return stanza
            self._take(stanza)

    def say_text(self, to: str, text: str) -> None:
        """A chat message."""
        self._say(f"<message type='chat' to='{to}'><body>{escaped(text)}</body></message>")

    def message(self) -> bytes:
        """The next message."""
        while True:
            stanza = self._stanza()
            if stanza.startswith(b"<message"):
                return stanza
            self._take(stanza)

    def decide(self, *stanzas: str) -> None:
        """Say something that changes who may see one; back when it is durable."""
        for stanza in stanzas:
            self._say(stanza)
        self._question()

    def _question(self) -> None:
        self.ask("get", "<ping xmlns='urn:xmpp:ping'/>")

    def heard_until_now(self) -> list[Notice]:
        before = len(self.heard)
        self._question()
        return self.heard[before:]

    def listen(self) -> Notice:
        before = len(self.heard)
        while len(self.heard) == before:
            self._take(self._stanza())
        return self.heard[-1]

    def _say(self, text: str) -> None:
        self.stream.send(text.encode())

    def _stanza(self) -> bytes:
        """The next one, whole."""
        text = self.stream.until(rb"<(iq|presence|message)\b[^>]*?(/>|>.*?</\1>)")
        return text[text.index(b"<") :].lstrip()

    def _take(self, stanza: bytes) -> None:
        if push := re.match(
            rb"<iq\b[^>]*type=['\"]set['\"][^>]*>\s*<query[^>]*jabber:iq:roster.*?jid=['\"]([^'\"@]+)@", stanza
        ):
            self._pushed.append(push[1].decode())
        if not stanza.startswith(b"<presence"):
            return
        root = ElementTree.fromstring(stanza)
        who = root.get("from", "").partition("@")[0]
        if who == self.name:
            return
        kind = root.get("type")
        note = root.findtext("status", "")
        if kind is None:
            show = root.findtext("show", "")
            state: State = "away" if show in ("away", "xa") else "dnd" if show == "dnd" else "open"
            self.heard.append(Notice(who, state, note, stanza))
            return
        words: dict[str, Literal["closed", "asked", "granted", "refused", "ended"]] = {
            "unavailable": "closed",
            "subscribe": "asked",
            "subscribed": "granted",
            "unsubscribed": "refused",
            "unsubscribe": "ended",
        }
        self.heard.append(Notice(who, words[kind], note, stanza))

    def close(self) -> None:
        self.stream.close()


class SipPerson(Person):
    """A phone on a TCP connection, or on UDP, where its dialogs outlive the server's process."""

    via = "sip"

    def __init__(self, house: House, name: str, wire: Wire = "tcp") -> None:
        super().__init__(house, name)
        self.agent = Agent(house, wire, name)  # type: ignore[arg-type]  # a House is what it needs of a Target
        self._etag = ""
        self._tuple = "t" + secrets.token_hex(3)
        self._dialogs: dict[str, tuple[str, str, str, str]] = {}
        """Call-ID to whom it is about, our From, the server's To and its Contact."""
        self._about: dict[str, str] = {}
        """Call-IDs of all subscriptions there ever were, and whom they are about."""
        self._cseq = 1

    # --- the presentity's side

    def tell(self, state: State, note: str = "") -> None:
        if state == "closed":
            self.publish(b"", expires=0)
            return
        body = DOCUMENT.format(
            who=self.address,
            id=self._tuple,
            basic="open",
            note=f"<note>{escaped(note)}</note>" if note else "",
            activity=ACTIVITY.get(state, ""),
        )
        self.publish(body.encode())

    def publish(self, body: bytes, content_type: str = "application/pidf+xml", expires: int = 600) -> bytes:
        """A PUBLISH by the entity-tag that stands; its answer, a success."""
        lines = [f"Expires: {expires}", "Event: presence"]
        if self._etag:
            lines.append(f"SIP-If-Match: {self._etag}")
        if body:
            lines.append(f"Content-Type: {content_type}")
        answer = self.request(self.agent.build("PUBLISH", self.agent.aor, *lines, body=body))
        assert sip_status(answer) == 200, answer
        self._etag = header(answer, "SIP-ETag") if expires else ""
        return answer

    def answer(self, who: str, granted: bool) -> None:
        """No phone can: another device of the account does."""
        (self.house.allow if granted else self.house.refuse)(self.name, who)

    def requests(self) -> list[str]:
        """Who waits for an answer, by a fetch of one's own watcher information (RFC 3857)."""
        call_id = secrets.token_hex(8)
        self._about[call_id] = WATCHER_INFO
        request = self.agent.build(
            "SUBSCRIBE",
            self.agent.aor,
            "Event: presence.winfo",
            "Expires: 0",
            "Accept: application/watcherinfo+xml",
            f"Contact: {self.agent.contact}",
            call_id=f"Call-ID: {call_id}",
        )
        answer = self.request(request)
        assert sip_status(answer) // 100 == 2, answer
        while not (told := [notice for notice in self.heard if notice.who == WATCHER_INFO]):
            self._take(self.agent.hear())
        self.heard = [notice for notice in self.heard if notice.who != WATCHER_INFO]
        body = told[-1].octets.partition(CRLF * 2)[2].decode()
        waiting = re.findall(r"<watcher\b[^>]*\bstatus=['\"](?:pending|waiting)['\"][^>]*>\s*[a-z]+:([^@<]+)@", body)
        return list(dict.fromkeys(waiting))

    # --- the watcher's side

    def watch(self, who: str, *, accept: str = "application/pidf+xml", expires: int = 600) -> bytes:
        """SUBSCRIBE; the answer."""
        call_id, tag = secrets.token_hex(8), secrets.token_hex(4)
        uri = f"sip:{who}@a.test"
        from_ = f"From: <{self.agent.aor}>;tag={tag}"
        answer = self.request(
            self.agent.build(
                "SUBSCRIBE",
                uri,
                "Event: presence",
                f"Expires: {expires}",
                f"Accept: {accept}",
                f"Contact: {self.agent.contact}",
                from_=from_,
                call_id=f"Call-ID: {call_id}",
            ),
            about=(call_id, who),
        )
        if expires and sip_status(answer) // 100 == 2:
            remote = re.search(r"<([^>]*)>", header(answer, "Contact", "m"))
            assert remote is not None, answer
            self._dialogs[call_id] = (who, from_, "To: " + header(answer, "To", "t"), remote[1])
        return answer

    def leave(self, who: str) -> None:
        for call_id, (about, *_) in list(self._dialogs.items()):
            if about == who:
                answer = self.resubscribe(call_id, 0)
                assert sip_status(answer) == 200, answer

    def resubscribe(self, call_id: str, expires: int) -> bytes:
        """A SUBSCRIBE inside a dialog; the answer."""
        who, from_, to, target = self._dialogs[call_id]
        self._cseq += 1
        request = self.agent.build(
            "SUBSCRIBE",
            target,
            "Event: presence",
            f"Expires: {expires}",
            "Accept: application/pidf+xml",
            f"Contact: {self.agent.contact}",
            from_=from_,
            to=to,
            call_id=f"Call-ID: {call_id}",
            cseq=f"CSeq: {self._cseq} SUBSCRIBE",
        )
        return self.request(request, about=(call_id, who))

    def adopt(self, other: SipPerson) -> None:
        """Know the dialogs of somebody else, as one who listened does."""
        self._dialogs |= other._dialogs

    def message(self) -> bytes:
        """The next MESSAGE, answered."""
        while True:
            message = self.agent.hear()
            if message.startswith(b"MESSAGE "):
                self.agent.reply(message)
                return message
            self._take(message)

    @property
    def dialogs(self) -> list[str]:
        """Call-IDs of those that were not ended."""
        return list(self._dialogs)

    # --- what is heard

    def listen(self) -> Notice:
        before = len(self.heard)
        while len(self.heard) == before:
            self._take(self.agent.hear())
        return self.heard[-1]

    def heard_until_now(self) -> list[Notice]:
        before = len(self.heard)
        self.request(self.agent.build("OPTIONS", "sip:a.test"))
        return self.heard[before:]

    def request(self, request: bytes, about: tuple[str, str] = ("", "")) -> bytes:
        """Ask with credentials; the final answer. Notifications that come before it are taken."""
        if about[0]:
            self._about[about[0]] = about[1]
        call_id, is_first = header(request, "Call-ID", "i"), True
        self.agent.send(self.agent.sign(request))
        while True:
            message = self.agent.hear()
            if not message.startswith(b"SIP/2.0 "):
                self._take(message)
            elif header(message, "Call-ID", "i") == call_id and sip_status(message) >= 200:
                if not (is_first and b"stale=true" in message):
                    return message
                is_first = False
                self.agent.challenged(message)
                self.agent.send(self.agent.sign(_next_branch(request)))

    def _take(self, message: bytes) -> None:
        if not message.startswith(b"NOTIFY "):
            return
        who = self._about.get(header(message, "Call-ID", "i"))
        if who is None:
            self.agent.reply(message, "481 Subscription Does Not Exist")
            return
        self.agent.reply(message)
        subscription = header(message, "Subscription-State")
        body = message.partition(CRLF * 2)[2]
        if who == WATCHER_INFO:
            self.heard.append(Notice(who, "nothing", octets=message))
        elif subscription.startswith("terminated"):
            call_id = header(message, "Call-ID", "i")
            self._dialogs.pop(call_id, None)
            self.heard.append(Notice(who, "ended", octets=message))
        elif subscription.startswith("pending"):
            self.heard.append(Notice(who, "pending", octets=message))
        elif not body:
            self.heard.append(Notice(who, "nothing", octets=message))
        else:
            self.heard.append(Notice(who, *read_document(body), octets=message))

    def close(self) -> None:
        self.agent.close()


def _next_branch(request: bytes) -> bytes:
    """The request as a transaction of its own."""
    return re.sub(rb"branch=z9hG4bK\w+", b"branch=z9hG4bK" + secrets.token_hex(6).encode(), request, count=1)


def read_document(body: bytes) -> tuple[State, str]:
    """State and note of a presence document, by a reader that is not ours; a signed one by what lies in it. A sealed one says
    neither."""
    if b"</presence>" not in body:
        return "closed", ""
    start = body.find(b"<?xml")
    if start < 0:
        start = body.find(b"<presence")
    end = body.find(b"</presence>") + len(b"</presence>")
    root = ElementTree.fromstring(body[start:end])
    tuples = [found for found in root.findall(f"{PIDF}tuple") if found.findtext(f"{PIDF}status/{PIDF}basic") == "open"]
    if not tuples:
        return "closed", root.findtext(f".//{PIDF}note", "")
    doing = {found.tag for person in root.findall(f"{DATA_MODEL}person") for found in person.iter()}
    shows = {show.text for show in root.iter("{urn:ietf:params:xml:ns:pidf:status:im}show")} | {
        show.text for found in tuples for show in found.iter() if show.tag.endswith("}show")
    }
    note = tuples[0].findtext(f"{PIDF}note") or root.findtext(f".//{PIDF}note") or root.findtext(f".//{DATA_MODEL}note")
    if f"{RPID}busy" in doing or "dnd" in shows:
        return "dnd", note or ""
    if f"{RPID}away" in doing or shows & {"away", "xa"}:
        return "away", note or ""
    return "open", note or ""


def escaped(text: str) -> str:
    """For XML."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
