"""Stories on the relay: who may attach, what data becomes, who hears of it (``bindings/apex/binding.py`` and its parts)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from comity.bindings.apex import events
from comity.bindings.apex.elements import (
    Attach,
    Bind,
    Data,
    Destination,
    Error,
    Ok,
    Option,
    Originator,
    Part,
    Recipient,
    Reply,
    StatusResponse,
    Terminate,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.cpim.address import Address
from comity.cpim.operations import Reason, Requirement, Response
from comity.service.interfaces import Accepted
from comity.service.policy import Limits
from comity.testing.service import settle
from tests.bindings.apex.world import PASSWORD, World, cpim_part
from tests.loop import in_loop

OVERRIDE = Option("attachOverride", trans_id=3)


def code(answer: Ok | Error | None) -> int:
    return answer.code if isinstance(answer, Error) else 250 if answer == Ok() else 0


@in_loop
async def test_the_examples_of_attach_and_terminate() -> None:
    """RFC 3340 sections 4.4.1 and 4.4.3, APEX-9."""
    world = await World().start()
    alice = await world.connect()
    await alice.sign_in("alice@a.test")
    channel = await alice.open()
    assert code(await alice.attach("alice@a.test", trans_id=1)) == 250
    assert code(await alice.attach("alice/appl=wb@a.test", trans_id=2)) == 250
    assert code(await alice.attach("alice/x@a.test", trans_id=1)) == 555
    assert code(await alice.attach("alice@elsewhere.test", trans_id=3)) == 553
    assert code(await alice.attach("bob@a.test", trans_id=3)) == 537
    assert code(await alice.attach("apex=presence@a.test", trans_id=3)) == 537
    assert code(await alice.terminate(13)) == 550
    assert code(await alice.terminate(1, channel)) == 250
    assert code(await alice.terminate(1, channel)) == 550
    assert code(await alice.attach("alice@a.test", trans_id=1)) == 250
    other = await alice.open()
    assert code(await alice.terminate(2, other)) == 550
    assert code(await alice.terminate(0, other)) == 250
    assert not world.pipeline.registrar.contacts(Address.parse("im:alice@a.test"))


@in_loop
async def test_the_checks_of_attach_come_in_the_order_of_the_rfc() -> None:
    """555 before 553 before 537 before options before 554 (RFC 3340 section 4.4.1)."""
    world = await World().start()
    alice = await world.online("alice@a.test")
    unknown = Option(external="urn:x:1", must_understand=True, target_hop="all", trans_id=1)
    await alice.attach("alice/one@a.test", trans_id=1)
    assert code(await alice.attach("bob@elsewhere.test", trans_id=1)) == 555
    assert code(await alice.attach("bob@elsewhere.test", 0, unknown, trans_id=2)) == 553
    assert code(await alice.attach("bob@a.test", 0, unknown, trans_id=2)) == 537
    assert code(await alice.attach("alice@a.test", 0, unknown, trans_id=2)) == 504
    assert code(await alice.attach("alice@a.test", trans_id=2)) == 554


@in_loop
async def test_the_same_attach_twice_is_555_and_the_first_stays() -> None:
    """P-23."""
    world = await World().start()
    alice = await world.online("alice@a.test")
    again = Attach(Endpoint.parse("alice@a.test"), 101)
    assert code(await alice.say(alice.channel, again)) == 555
    assert len(world.pipeline.registrar.contacts(Address.parse("im:alice@a.test"))) == 1


@in_loop
async def test_endpoints_are_compared_exactly_and_people_are_reached_in_any_spelling() -> None:
    """RFC 3340 section 2.2.1, ADDR-27; a relay may treat two spellings alike for delivery."""
    world = await World().start()
    alice, bob = await world.online("alice@a.test"), await world.online("bob@a.test")
    assert code(await alice.attach("Alice@a.test")) == 537
    assert code(await alice.send("Alice@a.test", "bob@a.test")) == 537
    assert code(await bob.send("bob@a.test", "Alice@a.test")) == 250
    assert str(alice.data[0].recipients[0].identity) == "alice@a.test"


@in_loop
async def test_attach_override_ends_the_earlier_attachment_with_556() -> None:
    """RFC 3342 section 1, APEX-16."""
    world = await World().start()
    first = await world.online("alice@a.test")
    second = await world.connect()
    await second.sign_in("alice@a.test")
    await second.open()
    assert code(await second.attach("alice@a.test", 0, OVERRIDE)) == 250
    assert [(e.code, e.trans_id) for e in first.elements if isinstance(e, Terminate)] == [(556, 101)]
    bob = await world.online("bob@a.test")
    assert code(await bob.send("bob@a.test", "alice@a.test")) == 250
    assert (len(first.data), len(second.data)) == (0, 1)
    assert code(await first.send("alice@a.test", "bob@a.test")) == 530


@in_loop
async def test_attach_rides_on_start() -> None:
    """RFC 3340 section 4.2, APEX-8."""
    world = await World().start()
    alice = await world.connect()
    await alice.sign_in("alice@a.test")
    ridden = await alice.open(Attach(Endpoint.parse("alice@a.test"), 1))
    assert alice.opened(ridden) == Ok()
    refused = await alice.open(Attach(Endpoint.parse("bob@a.test"), 1))
    assert code(alice.opened(refused)) == 537
    assert code(await alice.say(ridden, Attach(Endpoint.parse("alice/x@a.test"), 1))) == 555
    assert code(await alice.say(refused, Attach(Endpoint.parse("alice/x@a.test"), 1))) == 250


@in_loop
async def test_nobody_attaches_before_sign_in_and_nobody_signs_in_in_the_clear() -> None:
    world = await World().start()
    plain = await world.connect(tls=False)
    await plain.open()
    assert code(await plain.attach("alice@a.test")) == 538
    assert isinstance(await plain.sign_in("alice@a.test"), events.SignInFailed)
    near = await world.connect(tls=False, host="127.0.0.1")
    await near.open()
    assert code(await near.attach("alice@a.test")) == 530
    assert isinstance(await near.sign_in("alice@a.test"), events.SignInSucceeded)
    assert code(await near.attach("alice@a.test")) == 250
    assert near.link.is_authenticated


@in_loop
async def test_tls_then_sasl_then_attach() -> None:
    """APEX-7: the session begins anew under TLS."""
    world = await World().start()
    alice = await world.connect(tls=False)
    alice.session.start_tls()
    await world.settle()
    greetings = [event for event in alice.events if isinstance(event, events.Greeted)]
    assert [greeting.has_tls for greeting in greetings] == [True, False]
    assert isinstance(await alice.sign_in("alice"), events.SignInSucceeded)
    await alice.open()
    assert code(await alice.attach("alice@a.test")) == 250


@pytest.mark.parametrize("who", ["alice@a.test", "nobody@a.test", "alice@b.test", "/@/"])
@in_loop
async def test_a_wrong_password_is_counted(who: str) -> None:
    world = await World().start()
    alice = await world.connect()
    assert isinstance(await alice.sign_in(who, "wrong"), events.SignInFailed)
    assert len(world.accounts.counting.failures) == 1
    assert isinstance(await alice.sign_in("alice@a.test", PASSWORD), events.SignInSucceeded)


@in_loop
async def test_a_banned_host_gets_nothing() -> None:
    world = await World().start()
    alice = await world.connect()
    for _ in range(3):
        await alice.sign_in("alice@a.test", "wrong")
    await settle()
    assert alice.link.is_closed
    again = await world.connect()
    assert not again.link.written
    await settle()
    assert again.link.is_closed


@in_loop
async def test_data_needs_an_attachment_and_its_own_originator() -> None:
    """P-21, P-24, APEX-12: 530, 537, and the channel lives."""
    world = await World().start()
    alice = await world.connect()
    await alice.open()
    assert code(await alice.send("alice@a.test", "bob@a.test")) == 530
    await alice.sign_in("alice@a.test")
    assert code(await alice.send("alice@a.test", "bob@a.test")) == 530
    await alice.attach("alice@a.test")
    assert code(await alice.send("bob@a.test", "bob@a.test")) == 537
    assert code(await alice.send("alice/x@a.test", "bob@a.test")) == 537
    assert code(await alice.send("apex=report@a.test", "bob@a.test")) == 537
    assert code(await alice.send("alice@a.test", "bob@a.test")) == 250


@in_loop
async def test_nobody_is_a_service() -> None:
    """ADDR-28: neither attached as one, nor as the originator of data."""
    world = await World().start()
    alice = await world.online("alice@a.test")
    for identity in ("apex=report@a.test", "apex=@a.test", "apex=presence/x@a.test"):
        assert code(await alice.attach(identity)) == 537
        assert code(await alice.send(identity, "bob@a.test")) == 537


@in_loop
async def test_a_message_from_elsewhere_reaches_no_service() -> None:
    """ADDR-28: im:apex%3Dpresence@a.test is nobody, whoever asks."""
    world = await World().start()
    answer = await world.submit(world.operation("x", "im:bob@a.test", "im:apex%3Dpresence@a.test"))
    assert isinstance(answer, Response)
    assert answer.reason is Reason.NO_SUCH_USER


@in_loop
async def test_a_person_binds_nothing() -> None:
    """P-25."""
    world = await World().start()
    alice = await world.online("alice@a.test")
    assert code(await alice.say(alice.channel, Bind("a.test", 9))) in (534, 537)


@in_loop
async def test_a_message_goes_from_application_to_application_unchanged() -> None:
    """APEX-10, APEX-11: bare content and an object alike."""
    world = await World().start()
    alice, bob = await world.online("alice@a.test"), await world.online("bob@a.test")
    gif = Part(b"Content-Type: image/gif\r\nX-Odd: 1\r\n", b"GIF89a\r\n--apex\xff\x00", "g@x")
    whole = cpim_part(world, "alice@a.test", "bob@a.test", "hi")
    for content in (gif, whole):
        assert code(await alice.send("alice@a.test", "bob@a.test", content=content)) == 250
    assert bob.contents == [gif, whole]
    assert [str(one.originator.identity) for one in bob.data] == ["alice@a.test"] * 2


@in_loop
async def test_a_subaddress_gets_what_names_it_and_nothing_else() -> None:
    world = await World().start()
    alice = await world.online("alice@a.test")
    board = await world.online("bob/appl=wb@a.test")
    assert code(await alice.send("alice@a.test", "bob@a.test")) == 250
    assert not board.data
    assert code(await alice.send("alice@a.test", "bob/appl=wb@a.test")) == 250
    assert [str(one.recipients[0].identity) for one in board.data] == ["bob/appl=wb@a.test"]
    bob = await world.online("bob@a.test")
    assert len(bob.data) == 1


@in_loop
async def test_a_message_for_nobody_attached_is_kept() -> None:
    """As if hold4Endpoint stood there; and it outlives the process."""
    world = await World().start()
    alice = await world.online("alice@a.test")
    assert code(await alice.send("alice@a.test", "bob@a.test")) == 250
    later = await World(former=world).start()
    bob = await later.online("bob@a.test")
    assert [part.octets for part in bob.contents] == [b"hello"]


@in_loop
async def test_what_was_not_confirmed_comes_again_with_the_same_content_id() -> None:
    """reliability.md section 5.3, egress."""
    world = await World().start()
    bob = await world.online("bob@a.test")
    bob.answer = lambda element: None
    await world.submit(world.operation("one", "im:alice@a.test", "im:bob@a.test"))
    await bob.lose()
    again = await world.online("bob@a.test")
    assert len(bob.data) == len(again.data) == 1
    assert bob.contents == again.contents


@in_loop
async def test_a_repeat_is_taken_once() -> None:
    """Key: peer, originator, recipient, Content-ID, fingerprint."""
    world = await World().start()
    alice, bob = await world.online("alice@a.test"), await world.online("bob@a.test")
    part = Part(b"Content-Type: text/plain\r\n", b"once", "1@a.test")
    for _ in range(2):
        assert code(await alice.send("alice@a.test", "bob@a.test", content=part)) == 250
    other = Part(b"Content-Type: text/plain\r\n", b"other octets", "1@a.test")
    assert code(await alice.send("alice@a.test", "bob@a.test", content=other)) == 250
    assert [content.octets for content in bob.contents] == [b"once", b"other octets"]


@in_loop
async def test_an_application_that_refuses_is_reported() -> None:
    """T7: 504 from an application is a failure the sender hears of, as it asked."""
    world = await World().start()
    alice, bob = await world.online("alice@a.test"), await world.online("bob@a.test")
    bob.answer = lambda element: Error(504)
    asked = Option("statusRequest", must_understand=True, trans_id=86)
    assert code(await alice.send("alice@a.test", "bob@a.test", options=[asked])) == 250
    await world.settle()
    assert alice.reports == [(86, "bob@a.test", 504)]


@in_loop
async def test_a_protected_message_goes_to_no_application_in_the_clear() -> None:
    """T11: required protection is looked for on the link itself."""
    world = await World().start()
    near = await world.connect(tls=False, host="127.0.0.1")
    await near.sign_in("bob@a.test")
    await near.open()
    await near.attach("bob@a.test")
    operation = world.operation("secret", "im:alice@a.test", "im:bob@a.test")
    answer = await world.submit(replace(operation, requirements=frozenset({Requirement.TLS})))
    assert isinstance(answer, Accepted)
    assert answer.outcome.result().reason is Reason.PROTECTION
    assert not near.data


@in_loop
async def test_who_sends_faster_than_the_rate_is_read_from_more_slowly() -> None:
    """L-05: nothing is refused for it."""
    world = await World(user_messages=10.0, user_message_burst=5).start()
    alice, bob = await world.online("alice@a.test"), await world.online("bob@a.test")
    for number in range(8):
        alice.session.send(alice.channel, _text(number))
    await world.settle()
    assert alice.link.is_paused
    await world.pass_time(5.0)
    assert not alice.link.is_paused
    assert len(bob.data) == 8


@in_loop
async def test_an_application_that_never_answers_holds_its_window_and_no_more() -> None:
    """P-16, L-04: the rest of its messages waits in the store, what services say is dropped."""
    world = await World().start()
    bob = await world.online("bob@a.test")
    bob.answer = lambda element: None
    for number in range(40):
        await world.submit(world.operation(f"{number}", "im:alice@a.test", "im:bob@a.test"))
    assert len(bob.data) == 32
    assert len(await world.store.read("inbox/im:bob@a.test", 100)) == 40
    endpoint = Endpoint.parse("bob@a.test")
    said = [world.binding.say("report", "a.test", endpoint, _report()) for _ in range(600)]
    await world.settle()
    assert [future.result() for future in said if future.done()] == [False] * (600 - 480)
    bob.answer = lambda element: Ok()
    await bob.take_back()
    messages = [data for data in bob.data if not data.originator.identity.is_service]
    assert len(messages) == 40
    assert all(future.result() for future in said[:480])


@in_loop
async def test_an_application_that_reads_nothing_costs_bounded_memory() -> None:
    """A peer that never opens its window."""
    world = await World().start()
    bob = await world.online("bob@a.test")
    world.applications.remove(bob)  # from now on it takes nothing
    for number in range(100):
        await world.submit(world.operation("x" * 50_000 + f"{number}", "im:alice@a.test", "im:bob@a.test"))
        world.binding.say("report", "a.test", Endpoint.parse("bob@a.test"), _report())
    await world.settle()
    (connection,) = world.binding._ground.connections.values()
    assert connection.session.waiting(bob.channel) + len(bob.link.written) < 512 * 1024
    assert connection.in_flight <= 32 + 100


@in_loop
async def test_a_closed_channel_ends_what_was_attached_on_it() -> None:
    """RFC 3340 section 6.1.1."""
    world = await World().start()
    alice = await world.online("alice@a.test")
    other = await alice.open()
    assert code(await alice.attach("alice/x@a.test", other)) == 250
    alice.session.close_channel(other)
    await world.settle()
    assert [contact.resource for contact in world.pipeline.registrar.contacts(Address.parse("im:alice@a.test"))] == [""]
    alice.session.release()
    await world.settle()
    assert alice.link.is_closed
    assert not alice.link.is_aborted
    assert not world.pipeline.registrar.contacts(Address.parse("im:alice@a.test"))


@in_loop
async def test_an_orderly_stop_says_goodbye_and_waits_for_nobody_for_ever() -> None:
    world = await World().start()
    alice, bob = await world.online("alice@a.test"), await world.online("bob@a.test")
    world.applications.remove(bob)  # it neither answers nor agrees
    draining = asyncio.ensure_future(world.binding.drain())
    await world.settle()
    assert [(element.trans_id, element.code) for element in alice.elements if isinstance(element, Terminate)] == [
        (0, 421)
    ]
    assert alice.link.is_closed
    assert not draining.done()
    late = await world.connect()
    assert late.link.is_closed or late.link.is_aborted
    await world.pass_time(2.1)
    await draining
    assert bob.link.is_closed


@in_loop
async def test_limits_have_their_errors() -> None:
    """CONSTR-1: recipients of one data, attachments of one account, size of an object."""
    world = await World(recipients=2, attachments=2).start()
    alice = await world.online("alice@a.test", "alice/1@a.test")
    assert code(await alice.attach("alice/2@a.test")) == 554
    assert code(await alice.send("alice@a.test", "bob@a.test", "bob@a.test", "bob@a.test")) == 554
    large = Part(b"Content-Type: text/plain\r\n", b"x" * 129 * 1024, "l@x")
    assert code(await alice.send("alice@a.test", "bob@a.test", content=large)) == 554
    assert code(await alice.send("alice@a.test", "bob@a.test")) == 250


@in_loop
async def test_a_full_inbox_is_not_now_for_that_recipient_alone() -> None:
    world = await World(limits=Limits(inbox_records=1)).start()
    alice = await world.online("alice@a.test")
    assert code(await alice.send("alice@a.test", "bob@a.test")) == 250
    assert code(await alice.send("alice@a.test", "bob@a.test")) == 450
    assert code(await alice.send("alice@a.test", "bob@a.test", "carol@a.test")) == 250


def _report() -> StatusResponse:
    return StatusResponse(86, (Destination(Endpoint.parse("carol@a.test"), Reply(250)),))


def _text(number: int) -> Data:
    part = Part(b"Content-Type: text/plain\r\n", b"x", f"{number}@x")
    alice, bob = Endpoint.parse("alice@a.test"), Endpoint.parse("bob@a.test")
    return Data(Originator(alice), (Recipient(bob),), part)
