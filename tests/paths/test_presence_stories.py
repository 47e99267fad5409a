"""Stories of presence for every ordered pair of bindings, over real sockets against a real server process.

The people are ``presence_people``'s, which know nothing of our code. Evidence for OPS-17 to OPS-36, ACL-3, ACL-9 to ACL-12,
ACL-28, GW-13 to GW-16, SEED-45, SEED-46, SEED-48, T4, T9, X8 and the rows N-02, N-08, N-09, N-13, N-15, N-17 and N-19.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Literal

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.secure import LocalCa, TrustStore, VerdictKind, decrypt, encrypt, new_identity, sign, verify
from tests.catalogue.raw import sip_status
from tests.catalogue.sip_agent import CRLF, Agent, header
from tests.evenness import assert_same_time
from tests.paths.kit import Via
from tests.paths.presence_people import DOCUMENT, House, Notice, Person, SipPerson, XmppPerson

VIAS: list[Via] = ["sip", "xmpp"]
AnyVia = Via | Literal["apex"]
ALL: list[AnyVia] = [*VIAS, "apex"]
pairs = pytest.mark.parametrize(("watching", "watched"), [(a, b) for a in ALL for b in ALL])
LIMITS = 'presence_interval = 0.001\nconnections_per_address = 1000\nsm_resume = "5 s"'
NOTE = "Zu Tisch <bis 2> & zurück 🍜"
ASKED = 300
"""Times that each of two is asked about, to compare how long it takes."""
CLOSED_S = 60.0
"""Gate G9: after a crash nobody is shown as there for longer."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server that tells each change at once."""
    made = House(tmp_path_factory.mktemp("presence"), LIMITS)
    made.start()
    yield made
    assert made.stop() == 0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes everybody at the end."""
    with ExitStack() as made:
        yield made


class Pair:
    """A watcher and whom it watches, each with one device of an account of its own."""

    def __init__(self, house: House, stack: ExitStack, watching: AnyVia, watched: AnyVia) -> None:
        self.house = house
        self.watcher: Person = stack.enter_context(house.person(watching, house.account("watcher")))
        self.seen: Person = stack.enter_context(house.person(watched, house.account("seen")))

    @property
    def who(self) -> str:
        """Local part of the one that is watched."""
        return self.seen.name

    def approve(self) -> None:
        """Once the request is there; shown to a device that can answer, or to the command line."""
        self.wait_asked()
        self.seen.answer(self.watcher.name, granted=True)

    def wait_asked(self) -> None:
        """The request was put to the one that is asked."""
        if isinstance(self.seen, XmppPerson):
            self.seen.sees(self.watcher.name, "asked")
        else:
            self.watcher.heard_until_now()

    def begin(self) -> None:
        """Up to where the watcher sees the other open."""
        self.seen.tell("open")
        self.watcher.watch(self.who)
        self.approve()
        self.watcher.sees(self.who, "open")


def about(notices: list[Notice], who: str) -> list[Notice]:
    """What was told about one person, without what only says that one may see it."""
    return [notice for notice in notices if notice.who == who and notice.state not in ("granted", "pending")]


# --- the whole life -----------------------------------------------------------------------------------------------


@pairs
def test_a_watcher_asks_waits_sees_everything_and_leaves(
    house: House, stack: ExitStack, watching: AnyVia, watched: AnyVia
) -> None:
    """OPS-20 to OPS-26, T4, T9, GW-13: pending, approved, open, away with a note, back, gone; nothing after leaving (N-09)."""
    pair = Pair(house, stack, watching, watched)
    watcher, seen, who = pair.watcher, pair.seen, pair.who
    seen.tell("away", "nobody may know")
    watcher.watch(who)
    pair.wait_asked()
    seen.tell("open", "nor this")
    assert {notice.state for notice in about(watcher.heard_until_now(), who)} <= {"closed", "nothing"}
    seen.answer(watcher.name, granted=True)
    watcher.sees(who, "open", "nor this")
    seen.tell("away", NOTE)
    watcher.sees(who, "away", NOTE)
    seen.tell("dnd", NOTE)
    watcher.sees(who, "dnd", NOTE)
    seen.tell("open")
    watcher.sees(who, "open", "")
    seen.tell("closed")
    watcher.sees(who, "closed")
    seen.tell("open")
    watcher.sees(who, "open")
    watcher.leave(who)
    watcher.heard_until_now()
    seen.tell("away", "after the end")
    seen.heard_until_now()
    assert not [notice for notice in watcher.heard_until_now() if b"after the end" in notice.octets]


@pairs
def test_a_watcher_that_is_refused_is_told_so_and_sees_nothing(
    house: House, stack: ExitStack, watching: AnyVia, watched: AnyVia
) -> None:
    """ACL-10, ACL-12, GW-15: waiting, then the end of it; never a document."""
    pair = Pair(house, stack, watching, watched)
    pair.seen.tell("open", "secret")
    pair.watcher.watch(pair.who)
    pair.wait_asked()
    pair.seen.answer(pair.watcher.name, granted=False)
    pair.watcher.sees(pair.who, "refused" if watching == "xmpp" else "ended")
    pair.seen.tell("away", "secret")
    pair.seen.heard_until_now()
    pair.watcher.heard_until_now()
    assert not [notice for notice in pair.watcher.heard if b"secret" in notice.octets]


@pairs
def test_a_permission_taken_back_ends_it_at_once(
    house: House, stack: ExitStack, watching: AnyVia, watched: AnyVia
) -> None:
    """G9, ACL-10: what is said after the acknowledged revocation is never told."""
    pair = Pair(house, stack, watching, watched)
    pair.begin()
    pair.seen.answer(pair.watcher.name, granted=False)
    pair.seen.tell("away", "after the revocation")
    pair.seen.heard_until_now()
    pair.watcher.heard_until_now()
    assert not [notice for notice in pair.watcher.heard if b"after the revocation" in notice.octets]
    last = [notice for notice in pair.watcher.heard if notice.who == pair.who][-1]
    assert last.state in ("ended", "refused", "closed")


@pairs
def test_who_is_blocked_sees_what_one_sees_of_somebody_who_went_away(
    house: House, stack: ExitStack, watching: AnyVia, watched: AnyVia
) -> None:
    """ACL-11, N-02: every octet the same but names, dialog identifiers, numbers and times; and asking again as well."""
    pair, other = Pair(house, stack, watching, watched), Pair(house, stack, watching, watched)
    told = []
    for one in (pair, other):
        one.begin()
        before = len(one.watcher.heard)
        if one is pair:
            house.block(pair.who, pair.watcher.name)
        else:
            other.seen.tell("closed")
        one.watcher.sees(one.who, "closed")
        answer = one.watcher.watch(one.who)
        one.watcher.heard_until_now()
        heard = [masked(notice.octets, one) for notice in one.watcher.heard[before:] if notice.who == one.who]
        told.append([masked(answer, one), *heard])
    assert told[0] == told[1]
    pair.seen.tell("away", "not for you")
    pair.seen.heard_until_now()
    pair.watcher.heard_until_now()
    assert not [notice for notice in pair.watcher.heard if b"not for you" in notice.octets]


def masked(octets: bytes, pair: Pair) -> bytes:
    """What must not differ: everything but who it is, which dialog, which message of it, and when."""
    text = octets.decode().replace(pair.watcher.name, "WATCHER").replace(pair.who, "SEEN")
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", "WHEN", text)
    text = re.sub(r"(?m)^(Call-ID|CSeq|Via|NOTIFY|Contact|Content-Length): ?.*$", r"\1", text)
    text = re.sub(r"(?m)^NOTIFY .*$", "NOTIFY", text)
    text = re.sub(r"tag=[^;>\s]+", "tag=TAG", text)
    text = re.sub(r"expires=\d+", "expires=SECONDS", text)
    text = re.sub(r"transID=(['\"])[^'\"]*\1", "transID=NUMBER", text)
    text = re.sub(r"SEEN@a\.test/[^'\"]*", "SEEN@a.test/DEVICE", text)
    return re.sub(r" id=(['\"])[^'\"]*\1", " id=ID", text).encode()


@pytest.mark.parametrize("watching", ALL)
def test_somebody_who_is_not_there_looks_like_one_who_does_not_answer(
    house: House, stack: ExitStack, watching: AnyVia
) -> None:
    """N-02: the same answer and the same notifications for a user who has no account."""
    name = house.account("curious")
    told = []
    for target in (house.account("silent"), "nobodyatall"):
        with house.person(watching, name) as watcher:
            answer = watcher.watch(target)
            watcher.heard_until_now()
            heard = [notice.octets for notice in watcher.heard if notice.who == target]
            told.append([unnamed(octets, target) for octets in (*([answer] if answer else []), *heard)])
    assert told[0] == told[1]


def test_a_phone_learns_nothing_by_the_time_an_answer_takes(house: House, stack: ExitStack) -> None:
    """N-12 by SIP: the medians for somebody silent and for nobody differ by less than a tenth and half a millisecond."""
    phone = stack.enter_context(house.person("sip", house.account("curious")))
    silent = house.account("silent")
    assert isinstance(phone, SipPerson)

    def ask(is_there: bool) -> bytes:
        return phone.watch(silent if is_there else "nobodyatall", expires=0)

    assert_same_time(ask, phone.heard_until_now, ASKED, ratio=0.1, seconds=0.0005)


def unnamed(octets: bytes, target: str) -> str:
    """An answer or notification without what names its dialog."""
    text = octets.decode().replace(target, "TARGET")
    text = re.sub(r"transID=\"\d+\"|\d{4}-\d\d-\d\dT[^\"]*\"", "WHEN", text)
    text = re.sub(r"(?m)^(Call-ID|CSeq|Via|Contact|Date|To|From): ?.*$", r"\1", text)
    text = re.sub(r"(?m)^NOTIFY .*$", "NOTIFY", text)
    text = re.sub(r"expires=\d+", "expires=SECONDS", text)
    return re.sub(r" id=(['\"])[^'\"]*\1", " id=ID", text)


@pytest.mark.parametrize("watching", VIAS)
def test_a_device_that_is_gone_without_a_word_is_seen_to_be_gone(house: House, stack: ExitStack, watching: Via) -> None:
    """OPS-33: its connection is dropped, nothing was said before."""
    pair = Pair(house, stack, watching, "xmpp")
    pair.begin()
    pair.seen.close()
    pair.watcher.sees(pair.who, "closed")


@pytest.mark.parametrize("watching", VIAS)
def test_a_notification_is_as_fast_as_a_message(house: House, stack: ExitStack, watching: Via) -> None:
    """OPS-35: in turn, between the same two; the 95th percentile at most twice that of messages."""
    messages, notifications = [], []
    for _ in range(6):  # each changes its presence no more often than its burst allows
        pair = Pair(house, stack, watching, "xmpp")
        assert isinstance(pair.seen, XmppPerson)
        assert isinstance(pair.watcher, XmppPerson | SipPerson)
        if isinstance(pair.watcher, SipPerson):
            pair.watcher.agent.register()
        pair.begin()
        for number in range(8):
            begun = time.perf_counter()
            pair.seen.say_text(f"{pair.watcher.name}@a.test", str(number))
            pair.watcher.message()
            between = time.perf_counter()
            pair.seen.tell("open", str(number))
            pair.watcher.sees(pair.who, "open", str(number))
            messages.append(between - begun)
            notifications.append(time.perf_counter() - between)
    message, notification = (statistics.quantiles(spent, n=20)[-1] for spent in (messages, notifications))
    assert notification <= 2 * message, (notification, message)


@pytest.mark.parametrize("watching", VIAS)
def test_a_phone_sees_who_asks_by_its_watcher_information(house: House, stack: ExitStack, watching: Via) -> None:
    """RFC 3857, N-11: pending until it was answered, and for nobody else to see."""
    pair = Pair(house, stack, watching, "sip")
    assert isinstance(pair.seen, SipPerson)
    assert pair.seen.requests() == []
    pair.watcher.watch(pair.who)
    pair.watcher.heard_until_now()
    assert pair.seen.requests() == [pair.watcher.name]
    pair.approve()
    assert pair.seen.requests() == []


# --- defaults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("default", ["everyone", "domain", "contacts", "deny"])
def test_the_default_decides_where_nobody_else_did(tmp_path: Path, default: str) -> None:
    """ACL-3, ACL-9: stock SIP clients can approve nobody."""
    house = House(tmp_path, LIMITS, f'presence_default = "{default}"')
    with house:
        house.start()
        for watching, watched in product(ALL, repeat=2):
            with ExitStack() as stack:
                defaulted(Pair(house, stack, watching, watched), default)


def defaulted(pair: Pair, default: str) -> None:
    """One pair under one default."""
    if default == "contacts":
        item = f"<query xmlns='jabber:iq:roster'><item jid='{pair.watcher.address}'/></query>"
        pair.house.decide(pair.who, f"<iq type='set' id='add'>{item}</iq>")
    pair.seen.tell("away", NOTE)
    pair.watcher.watch(pair.who)
    if default != "deny":
        pair.watcher.sees(pair.who, "away", NOTE)
        return
    pair.watcher.heard_until_now()
    assert not [notice for notice in pair.watcher.heard if notice.state in ("open", "away", "dnd")]
    if isinstance(pair.seen, SipPerson):
        assert pair.watcher.name not in pair.seen.requests()


# --- crashes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("watched", VIAS)
def test_after_a_crash_nobody_is_shown_as_there_until_they_speak_again(tmp_path: Path, watched: Via) -> None:
    """N-17, G9, F-03, OPS-34: killed while "open" stood; the phone that watched, still there, is told within 60 s."""
    house = House(tmp_path, LIMITS, 'presence_default = "everyone"')
    with house, ExitStack() as stack:
        house.start()
        seen = stack.enter_context(house.person(watched, house.account("seen")))
        phone = Phone(house, house.account("watcher"))
        stack.callback(phone.close)
        seen.tell("open", "before the crash")
        phone.subscribe(seen.name)
        assert b"before the crash" in phone.notified()
        house.kill()
        house.start()
        phone.agent.datagrams.sock.settimeout(CLOSED_S)
        told = phone.notified()
        assert b"<basic>closed</basic>" in told
        assert b"before the crash" not in told
        phone.agent.datagrams.sock.settimeout(30)
        with house.person(watched, seen.name) as again:
            again.tell("open", "after the crash")
            assert b"after the crash" in phone.notified()


@pytest.mark.parametrize("watched", ALL)
def test_a_permission_taken_back_before_a_crash_stays_taken_back(tmp_path: Path, watched: AnyVia) -> None:
    """G9 with a restart: the acknowledged revocation is durable."""
    house = House(tmp_path, LIMITS)
    with house, ExitStack() as stack:
        house.start()
        seen = stack.enter_context(house.person(watched, house.account("seen")))
        watcher = house.account("watcher")
        phone = Phone(house, watcher)
        stack.callback(phone.close)
        house.allow(seen.name, watcher)
        seen.tell("open", "allowed")
        phone.subscribe(seen.name)
        assert b"allowed" in phone.notified()
        seen.answer(watcher, granted=False)
        house.kill()
        house.start()
        with house.person(watched, seen.name) as again:
            again.tell("open", "after the revocation")
            again.heard_until_now()
            assert not [octets for octets in phone.until_now() if b"after the revocation" in octets]


class Phone:
    """A watcher on UDP: its dialog outlives the server's process."""

    def __init__(self, house: House, name: str) -> None:
        self.agent = Agent(house, "udp", name)  # type: ignore[arg-type]  # a House is what it needs of a Target
        self._waiting: list[bytes] = []

    def subscribe(self, who: str) -> None:
        """Ask for an hour."""
        request = self.agent.build(
            "SUBSCRIBE",
            f"sip:{who}@a.test",
            "Event: presence",
            "Expires: 3600",
            "Accept: application/pidf+xml",
            f"Contact: {self.agent.contact}",
        )
        answer = self._ask(self.agent.sign(request))
        assert sip_status(answer) // 100 == 2, answer

    def notified(self) -> bytes:
        """The next NOTIFY with a document, answered."""
        while True:
            message = self._waiting.pop(0) if self._waiting else self.agent.hear()
            if message.startswith(b"NOTIFY "):
                self.agent.reply(message)
                if message.partition(CRLF * 2)[2]:
                    return message

    def until_now(self) -> list[bytes]:
        """Everything that comes before the answer to a question."""
        self._ask(self.agent.build("OPTIONS", "sip:a.test"))
        heard, self._waiting = self._waiting, []
        for message in heard:
            if message.startswith(b"NOTIFY "):
                self.agent.reply(message)
        return heard

    def _ask(self, request: bytes) -> bytes:
        self.agent.send(request)
        while True:
            message = self.agent.hear()
            if message.startswith(b"SIP/2.0 "):
                if header(message, "Call-ID", "i") == header(request, "Call-ID"):
                    return message
            else:
                self._waiting.append(message)

    def close(self) -> None:
        """Close."""
        self.agent.close()


# --- rules for each watcher, and who is who -----------------------------------------------------------------------


def test_a_dialog_is_its_watcher_s_alone(house: House, stack: ExitStack) -> None:
    """N-08, SEC-32, SEED-48: somebody else's SUBSCRIBE with Expires 0 inside it is 481, and it goes on."""
    pair = Pair(house, stack, "sip", "xmpp")
    pair.begin()
    thief = stack.enter_context(house.person("sip", house.account("thief")))
    assert isinstance(pair.watcher, SipPerson)
    assert isinstance(thief, SipPerson)
    [call_id] = pair.watcher.dialogs
    thief.adopt(pair.watcher)
    assert sip_status(thief.resubscribe(call_id, 0)) in (403, 481)
    pair.seen.tell("away", "still told")
    pair.watcher.sees(pair.who, "away", "still told")


@pytest.mark.parametrize("watching", VIAS)
def test_each_watcher_gets_what_is_for_it_and_nobody_else_anything(
    house: House, stack: ExitStack, watching: Via
) -> None:
    """ACL-28, N-15: two of one domain and one protocol; a bystander hears nothing."""
    seen = stack.enter_context(house.person("sip", house.account("seen")))
    people = [stack.enter_context(house.person(watching, house.account("watcher"))) for _ in range(3)]
    allowed, polite, bystander = people
    house.allow(seen.name, allowed.name)
    house.block(seen.name, polite.name)
    seen.tell("away", "for one alone")
    if isinstance(bystander, XmppPerson):
        bystander.tell("open")
    for watcher in (allowed, polite):
        watcher.watch(seen.name)
    allowed.sees(seen.name, "away", "for one alone")
    for watcher in (polite, bystander):
        watcher.heard_until_now()
        assert not [notice for notice in watcher.heard if b"for one alone" in notice.octets]
    assert not about(bystander.heard, seen.name)


def test_nobody_publishes_for_another(house: House, stack: ExitStack) -> None:
    """N-19, ACL-22: neither to another's address nor about another."""
    alice = stack.enter_context(house.person("sip", house.account("alice")))
    victim = stack.enter_context(house.person("xmpp", house.account("victim")))
    assert isinstance(alice, SipPerson)
    document = DOCUMENT.format(who=victim.address, id="t1", basic="open", note="", activity="").encode()
    lines = ("Event: presence", "Expires: 600", "Content-Type: application/pidf+xml")
    for uri in (f"sip:{victim.address}", alice.agent.aor):
        answer = alice.request(alice.agent.build("PUBLISH", uri, *lines, body=document))
        assert sip_status(answer) == 403, answer


# --- signed presence ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("takes", [True, False])
def test_a_signed_document_goes_whole_to_who_takes_it_and_composed_to_others(
    house: House, stack: ExitStack, takes: bool
) -> None:
    """SEED-46, SEED-39, PRES-22: the signature verifies, or there is none; never one about something else."""
    seen = stack.enter_context(house.person("sip", house.account("seen")))
    watcher = stack.enter_context(house.person("sip", house.account("watcher")))
    assert isinstance(seen, SipPerson)
    assert isinstance(watcher, SipPerson)
    when = datetime.now(UTC)
    ca = LocalCa.create("Test authority", when=when)
    identity = new_identity(Address.parse(f"im:{seen.address}"), ca=ca, when=when)
    document = DOCUMENT.format(
        who=seen.address, id="t1", basic="open", note="<note>signed</note>", activity="<rpid:away/>"
    )
    signed = sign(MimeObject.of("application/pidf+xml", document.encode()), identity, when=when)
    seen.publish(signed.octets, content_type=signed.header("content-type") or "")
    house.allow(seen.name, watcher.name)
    accept = "application/pidf+xml, multipart/signed" if takes else "application/pidf+xml"
    watcher.watch(seen.name, accept=accept)
    told = watcher.sees(seen.name, "away", "signed").octets
    body = told.partition(CRLF * 2)[2]
    if takes:
        assert body == signed.octets
        got = MimeObject.of(header(told, "Content-Type", "c"), body)
        verdict = verify(got, TrustStore(anchors=(ca.certificate,)), now=datetime.now(UTC))
        # The document says nothing of when it was signed; the signature itself holds.
        assert (verdict.verdict, verdict.signer) == (VerdictKind.NO_FRESHNESS, f"pres:{seen.address}"), verdict
        assert verdict.covers_whole
    else:
        assert header(told, "Content-Type", "c").startswith("application/pidf+xml")
        assert b"pkcs7" not in told


def test_a_sealed_document_reaches_those_it_is_for_and_tells_others_nothing(house: House, stack: ExitStack) -> None:
    """SEED-39, SEED-3: the server cannot open it; who takes no encrypted documents hears of no state, not of "closed"."""
    seen, reader, other = (
        stack.enter_context(house.person("sip", house.account(name))) for name in ("seen", "reader", "other")
    )
    assert isinstance(seen, SipPerson)
    assert isinstance(reader, SipPerson)
    assert isinstance(other, SipPerson)
    when = datetime.now(UTC)
    ca = LocalCa.create("Test authority", when=when)
    signer = new_identity(Address.parse(f"im:{seen.address}"), ca=ca, when=when)
    key = new_identity(Address.parse(f"im:{reader.address}"), ca=ca, when=when)
    document = DOCUMENT.format(who=seen.address, id="t1", basic="open", note="<note>for you alone</note>", activity="")
    plain = MimeObject.of("application/pidf+xml", document.encode())
    sealed = encrypt(plain, [key.certificate], signer=signer, when=when)
    seen.publish(sealed.octets, content_type=sealed.content_type)
    for person, accept in ((reader, "application/pidf+xml, application/pkcs7-mime"), (other, "application/pidf+xml")):
        house.allow(seen.name, person.name)
        person.watch(seen.name, accept=accept)
    told = reader.listen().octets
    assert told.partition(CRLF * 2)[2] == sealed.octets
    opened = decrypt(MimeObject.of(header(told, "Content-Type", "c"), sealed.octets), [key])
    assert b"for you alone" in opened.entity
    told = other.listen().octets
    assert header(told, "Content-Type", "c").startswith("application/pidf+xml")
    assert b"<basic>" not in told
    assert b"for you alone" not in told


# --- one without the other ----------------------------------------------------------------------------------------


def test_messages_go_with_presence_switched_off(tmp_path: Path) -> None:
    """SEED-45: and what belongs to presence is refused in each protocol's own words."""
    house = House(tmp_path, LIMITS, "presence = false")
    with house, ExitStack() as stack:
        house.start()
        sip = stack.enter_context(house.person("sip", house.account("phone")))
        xmpp = stack.enter_context(house.person("xmpp", house.account("desk")))
        assert isinstance(sip, SipPerson)
        assert isinstance(xmpp, XmppPerson)
        sip.agent.register()
        xmpp.tell("open")
        message = sip.agent.message("to the desk", to=f"sip:{xmpp.address}")
        assert sip_status(sip.request(message)) // 100 == 2
        assert b"to the desk" in xmpp.message()
        xmpp.say_text(sip.address, "to the phone")
        assert b"to the phone" in sip.message()
        publish = sip.agent.build("PUBLISH", sip.agent.aor, "Event: presence", "Expires: 600")
        assert sip_status(sip.request(publish)) in (405, 489, 501)
        assert sip_status(sip.watch(xmpp.name)) in (405, 489, 501)


def test_presence_goes_with_messages_switched_off(tmp_path: Path) -> None:
    """SEED-45, the reverse."""
    house = House(tmp_path, LIMITS, 'messages = false\npresence_default = "everyone"')
    with house, ExitStack() as stack:
        house.start()
        phone = stack.enter_context(house.person("sip", house.account("phone")))
        desk = stack.enter_context(house.person("xmpp", house.account("desk")))
        assert isinstance(phone, SipPerson)
        desk.tell("away", NOTE)
        phone.watch(desk.name)
        phone.sees(desk.name, "away", NOTE)
        phone.tell("dnd", NOTE)
        desk.watch(phone.name)
        desk.sees(phone.name, "dnd", NOTE)
        message = phone.agent.message("not here", to=f"sip:{desk.address}")
        assert sip_status(phone.request(message)) // 100 in (4, 5)
