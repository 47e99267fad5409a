"""The presence service of APEX over real sockets against a real server process: what the stories of pairs do not tell.

The applications are ``apex_person``'s, on a BEEP peer of its own. Evidence for APEX-17 to APEX-21, X39, N-02, N-12 and G9.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.secure import LocalCa, TrustStore, VerdictKind, new_identity, sign, verify
from tests.evenness import assert_same_time
from tests.interop.apex_peer import option
from tests.interop.apex_peer_beep import Refused
from tests.paths.apex_person import SERVICE, ApexPerson
from tests.paths.kit import Via
from tests.paths.presence_people import DOCUMENT, House, SipPerson
from tests.paths.relays import peer, route, servers

LIMITS = "presence_interval = 0.001\nconnections_per_address = 1000\nuser_messages = 1000\nuser_message_burst = 10000"
SECURED = "urn:comity:secured-presence:0"
ASKED = 200
"""Times that each of two is asked about, to compare how long it takes."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server that tells each change at once."""
    made = House(tmp_path_factory.mktemp("apex-presence"), LIMITS)
    made.start()
    yield made
    assert made.stop() == 0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes everybody at the end."""
    with ExitStack() as made:
        yield made


def person(house: House, stack: ExitStack, name: str, resource: str = "") -> ApexPerson:
    """An application of a new account."""
    return stack.enter_context(ApexPerson(house, house.account(name), resource))


@pytest.mark.parametrize("via", ["sip", "xmpp", "apex"])
def test_an_owner_hears_of_watchers_of_every_protocol(house: House, stack: ExitStack, via: Via) -> None:
    """APEX-18: by notify, and when they are gone."""
    seen = person(house, stack, "seen")
    watcher = stack.enter_context(house.person(via, house.account("watcher")))
    house.allow(seen.name, watcher.name)
    seen.watch_watchers()
    watcher.watch(seen.name)
    if via == "xmpp":
        watcher.sees(seen.name, "granted")
    watcher.heard_until_now()
    seen.heard_until_now()
    assert (watcher.address, "subscribe") in seen.notified
    watcher.leave(seen.name)
    watcher.heard_until_now()
    seen.heard_until_now()
    assert seen.notified[-1] == (watcher.address, "terminate")


def test_of_two_writers_over_two_sessions_the_second_reads_again(house: House, stack: ExitStack) -> None:
    """APEX-19: 555, then 250."""
    one = person(house, stack, "writer", "one")
    two = stack.enter_context(ApexPerson(house, one.name, "two"))
    stamp, now = two.read().get("lastUpdate"), datetime.now(UTC).isoformat()
    one.tell("away")
    publish = (
        f"<publish publisher='{one.address}' transID='%d' timeStamp='{now}'>"
        f"<presence publisher='{one.address}' lastUpdate='%s'>"
        f"<tuple destination='mailto:{one.address}' availableUntil='2525-12-31T23:59:59-08:00' />"
        "</presence></publish>"
    )
    assert two.operate(publish % (91, stamp), 91) == 555
    assert two.operate(publish % (92, two.read().get("lastUpdate")), 92) == 250
    destinations = [found.get("destination") for found in one.read().iter("tuple")]
    assert destinations == [f"mailto:{one.address}"]


def test_subscriptions_and_entries_outlive_a_killed_server(tmp_path: Path) -> None:
    """APEX-21, G9, F-03: told when the application attaches again; the device's word is gone, the entry stands to its time."""
    house = House(tmp_path, LIMITS, 'presence_default = "everyone"')
    with house, ExitStack() as stack:
        house.start()
        phone = stack.enter_context(house.person("xmpp", house.account("phone")))
        seen, watcher = person(house, stack, "seen"), person(house, stack, "watcher", "desk")
        phone.tell("open", "before the crash")
        seen.tell("away", "until then")
        for who in (phone, seen):
            watcher.watch(who.name)
        watcher.sees(phone.name, "open", "before the crash")
        watcher.sees(seen.name, "away", "until then")
        house.kill()
        house.start()
        again = stack.enter_context(ApexPerson(house, watcher.name, "desk"))
        again.watches = watcher.watches
        again.application.session.sock.settimeout(60)
        heard: dict[str, tuple[str, str]] = {}
        while len(heard) < 2:
            notice = again.listen()
            heard[notice.who] = notice.state, notice.note
        assert heard == {phone.name: ("closed", ""), seen.name: ("away", "until then")}
        again.leave(phone.name)
        with house.person("xmpp", phone.name) as there:
            there.tell("open", "after the end")
            there.heard_until_now()
        assert not [notice for notice in again.heard_until_now() if notice.who == phone.name]


def test_signed_presence_of_a_phone_reaches_the_application_that_asked_for_it(house: House, stack: ExitStack) -> None:
    """X39, SEED-46: octet for octet as data from apex=presence; the signature verifies."""
    seen = stack.enter_context(house.person("sip", house.account("seen")))
    assert isinstance(seen, SipPerson)
    watcher = person(house, stack, "watcher")
    house.allow(seen.name, watcher.name)
    when = datetime.now(UTC)
    ca = LocalCa.create("Test authority", when=when)
    identity = new_identity(Address.parse(f"im:{seen.address}"), ca=ca, when=when)
    document = DOCUMENT.format(
        who=seen.address, id="t1", basic="open", note="<note>signed</note>", activity="<rpid:away/>"
    )
    signed = sign(MimeObject.of("application/pidf+xml", document.encode()), identity, when=when)
    seen.publish(signed.octets, content_type=signed.header("content-type"))
    watcher.watches[7] = seen.name
    subscribe = f"<subscribe publisher='{seen.address}' duration='600' transID='7' />"
    watcher.application.data(watcher.address, SERVICE, inline=subscribe, options=option(SECURED, 7, must=True))
    assert watcher.listen().state == "away"
    data = watcher.application.receive()
    assert data.originator == SERVICE
    assert data.body == signed.octets
    named = data.option(SECURED)
    assert named is not None
    assert named.get("transID") == "7"
    got = MimeObject.of(data.header("Content-Type"), data.body)
    verdict = verify(got, TrustStore(anchors=(ca.certificate,)), now=datetime.now(UTC))
    assert (verdict.verdict, verdict.signer) == (VerdictKind.NO_FRESHNESS, f"pres:{seen.address}"), verdict


def test_an_application_learns_of_nobody_whether_he_is_there(house: House, stack: ExitStack) -> None:
    """N-02, N-12: the same publish for somebody silent and for nobody, in the same time; and 537 for both."""
    curious, silent = person(house, stack, "curious"), house.account("silent")
    told = []
    for target in (silent, "nobodyatall"):
        curious.watch(target)
        octets = curious.sees(target, "closed").octets.decode().replace(target, "TARGET")
        told.append(re.sub(r"\d{4}-\d\d-\d\dT[^\"]*|transID=\"\d+\"", "X", octets))
        number = curious.application.next_id()
        watch = f"<watch publisher='{target}@a.test' duration='600' transID='{number}' />"
        assert curious.operate(watch, number) == 537
    assert told[0] == told[1]
    who = person(house, stack, "clock")

    def ask(is_there: bool) -> None:
        number = who.application.next_id()
        target = who.watches[number] = silent if is_there else "nobodyatall"
        who.say(f"<subscribe publisher='{target}@a.test' duration='0' transID='{number}' />")
        who.listen()

    assert_same_time(ask, lambda: None, ASKED, ratio=0.1, seconds=0.0005)


def test_a_watcher_at_another_domain_is_told_through_the_relays(tmp_path: Path) -> None:
    """T6, APEX-17, APEX-21: subscribe, pending, allowed, changes, a kill of the notifier, terminate: all by two servers' relays."""
    (a, b), trust = servers(tmp_path, "a.test", "b.test")
    a.join(trust, route("b.test", b.hop()), peer("b.test", "b.test"))
    b.join(trust, route("a.test", a.hop()), peer("a.test", "a.test"))
    with ExitStack() as stack:
        for server in (a, b):
            stack.enter_context(server).start()
        alice = stack.enter_context(a.application("alice@a.test"))
        bob = stack.enter_context(b.application("bob@b.test"))
        service = "apex=presence@b.test"

        def ask(element: str) -> None:
            alice.data("alice@a.test", service, inline=element)

        def told(until: str) -> ElementTree.Element:
            """The next element whose text has this in it."""
            while True:
                data = alice.receive(60)
                assert (data.originator, data.recipients) == (service, ["alice@a.test"])
                assert data.inline is not None
                (element,) = data.inline
                if until in ElementTree.tostring(element, "unicode"):
                    return element

        def publish(number: int, word: str) -> None:
            entry = (
                f"<publish publisher='bob@b.test' transID='{number}' timeStamp='{now()}'>"
                f"<presence publisher='bob@b.test' lastUpdate='{now()}'>"
                f"<tuple destination='apex:bob@b.test' availableUntil='2525-12-31T23:59:59-08:00' tupleInfo='x:{word}' />"
                "</presence></publish>"
            )
            bob.data("bob@b.test", service, inline=entry)
            reply = bob.receive().inline
            assert reply is not None
            assert reply[0].get("code") == "250"

        publish(1, "first")
        ask("<subscribe publisher='bob@b.test' duration='600' transID='7' />")
        assert "x:first" not in ElementTree.tostring(told("publish"), "unicode"), "bob has to say yes"
        b.run("account", "allow", "bob@b.test", "alice@a.test", "-c", str(b.config))
        assert told("x:first").get("transID") == "7"
        b.kill()
        b.start()
        told("x:first")
        ask("<terminate transID='7' />")
        assert told("reply").get("code") == "250"


def now() -> str:
    """A timestamp."""
    return datetime.now(UTC).isoformat()


def test_what_no_dtd_allows_is_501_and_the_channel_lives(house: House, stack: ExitStack) -> None:
    """The catalogue's kin for presence, APEX-22: bad numbers, bad times, no tuple; 10,000 tuples are refused as against policy."""
    who = person(house, stack, "odd")
    entry = (
        f"<publish publisher='{who.address}' transID='1' timeStamp='2000-05-14T13:30:00-08:00'>"
        f"<presence publisher='{who.address}' lastUpdate='%s'>%s</presence></publish>"
    )
    one = "<tuple destination='mailto:x@a.test' availableUntil='%s' />"
    stamp = "2000-05-14T13:02:00-08:00"
    bad = [
        *(
            f"<subscribe publisher='{who.address}' duration='{duration}' transID='{number}' />"
            for duration, number in (("-1", "1"), ("2147483648", "1"), ("", "1"), ("1e3", "1"), ("1", "0"))
        ),
        f"<watch publisher='{who.address}' duration='1' transID='2147483648' />",
        f"<watch publisher='{who.address}' duration='1' transID='1'><tuple /></watch>",
        "<subscribe publisher='@' duration='1' transID='1' />",
        entry % (stamp, ""),
        entry % ("yesterday", one % stamp),
        entry % (stamp, one % "9999-12-31T23:59:59-08:00"),
        entry % (stamp, one % "0000-00-00T00:00:00Z"),
        entry % (stamp, "<tuple destination='nowhere' availableUntil='2525-12-31T23:59:59Z' />"),
    ]
    for element in bad:
        with pytest.raises(Refused) as caught:
            who.say(element)
        assert caught.value.code == "501", element
    with pytest.raises(Refused) as caught:
        who.say(entry % (stamp, (one % "2525-12-31T23:59:59Z") * 10_000))
    assert caught.value.code == "554"
    assert who.operate(entry % (stamp, (one % "2525-12-31T23:59:59Z") * 201), 1) == 554
    assert who.operate(entry % (stamp, one % "0001-01-01T00:00:00Z" + one % "9999-12-31T23:59:59Z"), 1) == 250
