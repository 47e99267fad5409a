"""SUBSCRIBE in another's name, while subscriptions are not done (SEC-31, SEC-33, SEC-35, N-08, N-10, T19)."""

from __future__ import annotations

import pytest

from comity.bindings.sip.mapping import Refusal
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.subscriptions import request_to_subscription
from comity.cpim.address import Address
from comity.cpim.operations import SubscribeOperation
from tests.bindings.sip.kit import Phone, World, story
from tests.bindings.sip.test_binding import ALICE, EVE, status

PRESENCE = [("Event", "presence"), ("Contact", "<sip:alice@192.0.2.10>"), ("Expires", "600")]


async def subscribe(phone: Phone, *headers: tuple[str, str], to: str = "sip:bob@a.test") -> SipResponse | None:
    return await phone.ask(phone.request("SUBSCRIBE", to, [*PRESENCE, *headers]))


def keeps_nothing(world: World) -> None:
    """No subscription anywhere: nothing stored, no transaction left to answer, nothing to send."""
    assert world.udp is not None
    assert not any(transaction.request for transaction in world.udp.session._servers._by_id.values())
    assert not world.network.dialled


class TestForged:
    @story
    async def test_a_stranger_is_asked_who_it_is(self) -> None:
        """N-10: over UDP too, and to the source address only; the one in From and Contact hears nothing."""
        world = await World().start()
        alice, eve = Phone(world, "alice", ALICE), Phone(world, "alice", EVE, password="guess")
        sent = await eve.send(eve.request("SUBSCRIBE", "sip:bob@a.test", PRESENCE))
        assert status(eve.responses[sent]) == 401
        assert not alice.received
        assert not eve.received
        keeps_nothing(world)

    @pytest.mark.parametrize("expires", ["600", "0"])
    @pytest.mark.parametrize("watcher", ["bob", "carol", "alice%40b.test", "nobody"])
    @story
    async def test_nobody_subscribes_or_unsubscribes_another(self, watcher: str, expires: str) -> None:
        """SEC-33: Eve, signed in as herself, cannot make somebody subscribe, nor end her subscription (SEC-32)."""
        world = await World().start()
        alice = Phone(world, "alice", ALICE, "tcp")
        forged = (("From", f"<sip:{watcher}@a.test>;tag=1"), ("Expires", expires))
        assert status(await subscribe(alice, *forged)) == 403
        assert not await world.store.lanes()
        keeps_nothing(world)

    @story
    async def test_no_sender_of_another_domain(self) -> None:
        """SEC-31: a@x.org, asked for by somebody of ours."""
        world = await World().start()
        alice = Phone(world, "alice", ALICE, "tcp")
        assert status(await subscribe(alice, ("From", "<sip:a@x.org>;tag=1"))) == 403

    @story
    async def test_headers_that_claim_an_identity_are_not_believed(self) -> None:
        """S-07."""
        world = await World().start()
        eve = Phone(world, "alice", EVE, "tcp", password="guess")
        claim = ("P-Asserted-Identity", "<sip:alice@a.test>")
        response = await subscribe(eve, claim)
        assert status(response) in (401, 403)

    @story
    async def test_a_captured_subscribe_sent_again_is_challenged(self) -> None:
        """SEC-35: its nonce is bound to the flow it was used on."""
        world = await World().start()
        alice = Phone(world, "alice", ALICE, "tcp")
        challenged = await alice.send(alice.request("SUBSCRIBE", "sip:bob@a.test", PRESENCE))
        alice.digest.take_challenge(alice.responses[challenged], "server")
        header = alice.digest.authorize("SUBSCRIBE", "sip:bob@a.test", b"")
        assert header is not None
        captured = alice.request("SUBSCRIBE", "sip:bob@a.test", [*PRESENCE, header])
        assert status(alice.responses[await alice.send(captured)]) == 405
        thief = Phone(world, "alice", ("198.51.100.67", 5060), "tcp")
        assert status(thief.responses[await thief.send(captured)]) == 401


@story
async def test_a_notify_nobody_subscribed_for_goes_nowhere() -> None:
    """SEC-36: 481, from a stranger and from one of ours, whatever it claims."""
    world = await World().start()
    bob = Phone(world, "bob", ("192.0.2.20", 5060), "tcp")
    await bob.register()
    for phone in (Phone(world, "alice", EVE), Phone(world, "alice", ALICE, "tcp")):
        headers = [("Event", "presence"), ("Subscription-State", "active"), ("Content-Type", "application/pidf+xml")]
        response = await phone.ask(phone.request("NOTIFY", "sip:bob@a.test", headers, b"<presence/>"))
        assert status(response) == 481
    assert not bob.received
    keeps_nothing(world)


class TestHerOwn:
    @story
    async def test_it_is_not_done_yet_and_says_so(self) -> None:
        world = await World().start()
        alice = Phone(world, "alice", ALICE, "tcp")
        response = await subscribe(alice)
        assert status(response) == 405
        assert response is not None
        assert "SUBSCRIBE" not in (response.value("allow") or "")
        keeps_nothing(world)

    @story
    async def test_in_a_dialog_nobody_has(self) -> None:
        """N-08: Expires 0 in a dialog of another user."""
        world = await World().start()
        alice = Phone(world, "alice", ALICE, "tcp")
        assert status(await subscribe(alice, ("To", "<sip:bob@a.test>;tag=other"), ("Expires", "0"))) == 481

    @story
    async def test_letters_of_either_case_are_her(self) -> None:
        """ADDR-4."""
        world = await World().start()
        alice = Phone(world, "alice", ALICE, "tcp")
        assert status(await subscribe(alice, ("From", "<sip:Alice@A.TEST>;tag=1"))) == 405


class TestMapping:
    def made(self, *changes: tuple[str, str], uri: str = "sip:bob@b.test") -> SubscribeOperation | Refusal:
        headers = {
            "Via": "SIP/2.0/TLS h;branch=z9hG4bKb1",
            "From": "<sip:alice@a.test>;tag=1",
            "To": "<sip:bob@b.test>",
            "Call-ID": "c1@host.test",
            "CSeq": "1 SUBSCRIBE",
            **dict(changes),
        }
        return request_to_subscription(SipRequest("SUBSCRIBE", uri, list(headers.items()), b""))

    def test_from_watches_the_request_uri(self) -> None:
        alice, bob = Address.parse("pres:alice@a.test"), Address.parse("pres:bob@b.test")
        assert self.made() == SubscribeOperation(alice, bob, "c1@host.test;1", "z9hG4bKb1", 3600)
        made = self.made(("Expires", "0"))
        assert isinstance(made, SubscribeOperation)
        assert made.duration == 0

    @pytest.mark.parametrize(
        ("changes", "uri", "code"),
        [
            ([("Expires", "soon")], "sip:bob@b.test", 400),
            ([("From", "<tel:911>;tag=1")], "sip:bob@b.test", 400),
            ([], "sip:b.test", 404),
        ],
    )
    def test_what_is_no_subscription(self, changes: list[tuple[str, str]], uri: str, code: int) -> None:
        made = self.made(*changes, uri=uri)
        assert isinstance(made, Refusal)
        assert made.status_code == code
