"""Who may see whom and who may write to whom, decided from the command line and by a blocking list, on a running server.

For people whose phones have no way to approve anybody (ACL-10 to ACL-12, ACL-21, ACL-24), over real sockets, for every pair of
bindings. The people are ``presence_people``'s.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from comity.client import text_object
from comity.cpim.address import Address
from comity.cpim.operations import Response, Status
from tests.paths.kit import Via
from tests.paths.presence_people import House, Person

VIAS: list[Via] = ["sip", "xmpp"]
LIMITS = "presence_interval = 0.001\nconnections_per_address = 1000"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server that tells each change at once."""
    made = House(tmp_path_factory.mktemp("commands"), LIMITS)
    made.start()
    yield made
    assert made.stop() == 0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes everybody at the end."""
    with ExitStack() as made:
        yield made


def command(house: House, *words: str) -> str:
    """An operator types it."""
    return house.run("account", *words, "-c", str(house.config))


def people(house: House, stack: ExitStack, watching: Via, watched: Via) -> tuple[Person, Person]:
    """A watcher, and one who is there and has said so."""
    watcher = stack.enter_context(house.person(watching, house.account("watcher")))
    seen = stack.enter_context(house.person(watched, house.account("seen")))
    seen.tell("open")
    return watcher, seen


@pytest.mark.parametrize(("watching", "watched"), [(a, b) for a in VIAS for b in VIAS])
def test_an_operator_answers_for_a_phone_that_cannot(
    house: House, stack: ExitStack, watching: Via, watched: Via
) -> None:
    """Allowed, politely blocked, allowed, refused: each is told before the command returns, and nothing after the last."""
    watcher, seen = people(house, stack, watching, watched)
    watcher.watch(seen.name)
    watcher.heard_until_now()
    report = json.loads(command(house, "watchers", seen.address, "--json"))
    assert [(one["watcher"], one["decision"]) for one in report["decided"]] == [(watcher.address, "none")]
    assert report["decided"][0]["asked"] is not None
    command(house, "allow", seen.address, watcher.address)
    watcher.sees(seen.name, "open")
    command(house, "polite-block", seen.address, watcher.address)
    watcher.sees(seen.name, "closed")
    command(house, "allow", seen.address, watcher.address)
    watcher.sees(seen.name, "open")
    command(house, "refuse", seen.address, watcher.address)
    watcher.sees(seen.name, "ended" if watching == "sip" else "closed")
    seen.tell("away", "after the end")
    seen.heard_until_now()
    watcher.heard_until_now()
    assert not [notice for notice in watcher.heard if b"after the end" in notice.octets]


@pytest.mark.parametrize(("watching", "watched"), [(a, b) for a in VIAS for b in VIAS])
def test_a_default_answers_for_everybody(house: House, stack: ExitStack, watching: Via, watched: Via) -> None:
    """One request waits when it is set, and one comes after it."""
    watcher, seen = people(house, stack, watching, watched)
    watcher.watch(seen.name)
    watcher.heard_until_now()
    command(house, "presence", seen.address, "--default", "domain")
    late = stack.enter_context(house.person(watching, house.account("late")))
    late.watch(seen.name)
    late.sees(seen.name, "open")
    if watching == "sip":  # by XMPP what was asked before is answered when it is asked again
        watcher.sees(seen.name, "open")


async def send(house: House, via: Via, sender: Address, recipient: Address) -> Response:
    async with asyncio.timeout(20):
        async with house.client(via, sender, receive=False) as client:
            return await client.send(text_object(sender, recipient, "hello"), recipient)


@pytest.mark.parametrize("via", VIAS)
def test_a_blocked_persons_message_is_answered_like_one_to_nobody(house: House, via: Via) -> None:
    """ACL-21, XEP-0191: in the sender's own protocol; unblocked, it is taken."""
    sender, recipient = (Address.parse(f"im:{house.account(name)}@a.test") for name in ("sender", "owner"))
    item = f"<item jid='{sender.local}@a.test'/>"
    house.decide(recipient.local, f"<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'>{item}</block></iq>")
    blocked = asyncio.run(send(house, via, sender, recipient))
    unknown = asyncio.run(send(house, via, sender, Address.parse("im:nobody@a.test")))
    assert blocked.status is unknown.status is Status.FAILURE
    assert (blocked.reason, blocked.text) == (unknown.reason, unknown.text)
    house.decide(recipient.local, f"<iq type='set' id='u'><unblock xmlns='urn:xmpp:blocking'>{item}</unblock></iq>")
    assert asyncio.run(send(house, via, sender, recipient)).status is not Status.FAILURE


def test_a_removed_account_is_gone_from_every_list(house: House, stack: ExitStack, tmp_path: Path) -> None:
    """Who is made under its name later sees nobody who had let the former one."""
    watcher, seen = people(house, stack, "xmpp", "xmpp")
    command(house, "allow", seen.address, watcher.address)
    watcher.watch(seen.name)
    watcher.sees(seen.name, "open")
    watcher.close()
    command(house, "remove", watcher.address)
    house.run("account", "add", watcher.address, "--password-stdin", "-c", str(house.config), text="correct horse")
    later = stack.enter_context(house.person("sip", watcher.name))
    later.watch(seen.name)
    later.heard_until_now()
    assert not [notice for notice in later.heard if notice.state == "open"]
    report = json.loads(command(house, "watchers", seen.address, "--json"))
    assert [(one["decision"], one["asked"] is not None) for one in report["decided"]] == [("none", True)]
