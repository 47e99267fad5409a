"""The presence service of APEX over real sockets against a real server process: what the stories of pairs do not tell.

The applications are ``apex_person``'s, on a BEEP peer of its own. Evidence for APEX-17 to APEX-21, X39, N-02, N-12 and G9.
"""

from __future__ import annotations

import re
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
from tests.paths.apex_person import SERVICE, ApexPerson
from tests.paths.kit import Via
from tests.paths.presence_people import DOCUMENT, House, SipPerson

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
        again.application._trans_id = watcher.application._trans_id
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
