"""Relay-relay mode: calling, bind, data between domains, transit, loops (RFC 3340 sections 2.1, 3.1, 4.4.2, 4.4.4.1, 4.5.2; RFC 3342)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from comity.bindings.apex.elements import (
    Bind,
    Data,
    DataHopping,
    DataTiming,
    Destination,
    Error,
    Inline,
    Ok,
    Option,
    Originator,
    Part,
    Recipient,
    Reply,
    StatusResponse,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.ground import Connection, answered
from comity.bindings.apex.service_wire import write_service
from comity.bindings.apex.session import ApexSession
from comity.bindings.apex.wire import read_option_content, write_option_content
from comity.cpim.operations import Fate, Reason, Requirement
from comity.service.channel import MOST_ATTEMPTS
from comity.service.interfaces import Accepted
from comity.service.policy import Limits
from comity.testing.service import settle
from tests.bindings.apex.internet import Internet, Node, by_address, by_certificate, route, status_request
from tests.loop import in_loop

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"
GIF = Part(b"Content-Type: image/gif\r\n", b"GIF89a\x00\xff\r\n--x", "2@a.test")


async def pair() -> tuple[Internet, Node, Node]:
    """a.test and b.test, who find each other by DNS and believe certificates."""
    internet = Internet()
    internet.records = {"a.test": [A], "b.test": [B]}
    a = await Node(internet, "a.test", A, [route("b.test")]).start()
    b = await Node(internet, "b.test", B, [route("a.test")]).start()
    return internet, a, b


async def chain() -> tuple[Internet, Node, Node, Node]:
    """a.test reaches c.test through b.test alone, and c.test a.test; both trust it as an intermediary."""
    internet = Internet()
    by_b = f"tls://{B}"
    a = Node(internet, "a.test", A, [route("*", by_b)], [by_certificate("b.test", "*")], names=["a.test", A])
    passing = [route("a.test", f"tls://{A}", "c.test"), route("c.test", f"tls://{C}", "a.test")]
    b = Node(internet, "b.test", B, passing, names=["b.test", B])
    c = Node(internet, "c.test", C, [route("*", by_b)], [by_certificate("b.test", "*")], names=["c.test", C])
    for node in (a, b, c):
        await node.start()
    return internet, a, b, c


def option_of(data: Data, name: str) -> Option:
    return next(option for option in data.options if option.name == name)


def hopping(count: int, trans_id: int = 7, *, reports: bool = False) -> Option:
    content = write_option_content(DataHopping(count, reports))
    return Option("dataHopping", target_hop="all", must_understand=True, trans_id=trans_id, content=content)


def timing(trans_id: int = 8, **values: object) -> Option:
    content = write_option_content(DataTiming(**values))  # type: ignore[arg-type]  # by name
    return Option("dataTiming", target_hop="all", must_understand=True, trans_id=trans_id, content=content)


def code(answer: Ok | Error | None) -> int:
    assert isinstance(answer, Error)
    return answer.code


# --- between two relays ------------------------------------------------------------------------------------------------


@in_loop
async def test_data_reaches_an_application_of_another_domain_and_its_status_comes_back() -> None:
    """APEX-12: a session to the recipient's relay, made when it is needed; APEX-14: 250 through both relays."""
    internet, a, b = await pair()
    alice, bob = await a.online("alice@a.test"), await b.online("bob@b.test")
    assert await alice.send("alice@a.test", "bob@b.test", content=GIF, options=[status_request(86)]) == Ok()
    assert bob.contents == [GIF]
    assert alice.reports == [(86, "bob@b.test", 250)]
    assert internet.calls == [("a.test", B, 912)], "the answer came back by the same session"


@in_loop
async def test_data_both_ways_goes_by_one_session() -> None:
    """RFC 3340 section 2.1: a relay, listener or initiator, may send data."""
    internet, a, b = await pair()
    alice, bob = await a.online("alice@a.test"), await b.online("bob@b.test")
    for number in range(5):
        part = replace(GIF, content_id=f"a{number}@a.test")
        assert await alice.send("alice@a.test", "bob@b.test", content=part) == Ok()
        part = replace(GIF, content_id=f"b{number}@b.test")
        assert await bob.send("bob@b.test", "alice@a.test", content=part) == Ok()
    assert [part.content_id for part in bob.contents if isinstance(part, Part)] == [f"a{n}@a.test" for n in range(5)]
    assert [part.content_id for part in alice.contents if isinstance(part, Part)] == [f"b{n}@b.test" for n in range(5)]
    assert len(internet.calls) == 1


@in_loop
async def test_unknown_recipient_of_another_domain_is_reported_with_550() -> None:
    """APEX-14: the status is that of the recipient's own relay."""
    _, a, _ = await pair()
    alice = await a.online("alice@a.test")
    assert await alice.send("alice@a.test", "nobody@b.test", options=[status_request(86)]) == Ok()
    assert alice.reports == [(86, "nobody@b.test", 550)]


@in_loop
async def test_message_waits_while_the_relay_cannot_be_reached_and_goes_when_it_can() -> None:
    internet, a, b = await pair()
    alice = await a.online("alice@a.test")
    b.kill()
    assert await alice.send("alice@a.test", "bob@b.test", content=GIF, options=[status_request(86)]) == Ok()
    await internet.pass_time(20)
    assert 2 <= len(internet.calls) < 10, "again and again, but not all the time"
    bob = await (await b.restart()).online("bob@b.test")
    await internet.pass_time(40)
    assert bob.contents == [GIF]
    assert alice.reports == [(86, "bob@b.test", 250)]


@in_loop
async def test_first_address_that_takes_us_is_used() -> None:
    """ADDR-17: fail-over in the order of the SRV records."""
    internet, a, b = await pair()
    internet.records["b.test"] = ["192.0.2.99", B]
    alice, bob = await a.online("alice@a.test"), await b.online("bob@b.test")
    await alice.send("alice@a.test", "bob@b.test", content=GIF)
    assert bob.contents == [GIF]
    assert internet.calls == [("a.test", "192.0.2.99", 912), ("a.test", B, 912)]


@in_loop
async def test_relay_with_a_certificate_for_another_name_gets_nothing() -> None:
    """SEC-33, RFC 3340 section 3.5: SRV is not proved; the certificate is for the destination's domain."""
    internet, a, b = await pair()
    b.names = ("evil.test",)
    alice = await a.online("alice@a.test")
    await alice.send("alice@a.test", "bob@b.test", content=GIF)
    assert internet.refused == ["b.test"]
    assert internet.data_count() == 0


@in_loop
async def test_relay_without_tls_gets_nothing_unless_it_is_on_this_machine_by_the_operators_word() -> None:
    internet = Internet()
    near = "127.0.0.2"
    known = [by_address("a.test", "127.0.0.1"), by_address("b.test", near)]
    a = await Node(internet, "a.test", "127.0.0.1", [route("b.test", f"tcp://{near}")], known).start()
    b = await Node(internet, "b.test", near, [route("a.test", "tcp://127.0.0.1")], known).start()
    alice, bob = await a.online("alice@a.test"), await b.online("bob@b.test")
    await alice.send("alice@a.test", "bob@b.test", content=GIF, options=[status_request(9)])
    assert bob.contents == [GIF]
    assert alice.reports == [(9, "bob@b.test", 250)]
    assert b"beep/TLS'><![CDATA[<ready" not in b"".join(octets for _, _, octets in internet.wire)
    # The same relay, reached by what DNS says: in the clear it is told nothing.
    internet.records = {"b.test": [near]}
    b.binding._ground.config = replace(b.binding._ground.config, has_tls=False)
    far = await Node(internet, "c.test", C, [route("b.test")], known).start()
    carol, before = await far.online("carol@c.test"), internet.data_count()
    await carol.send("carol@c.test", "bob@b.test", content=GIF)
    assert internet.data_count() == before


@in_loop
async def test_message_that_requires_tls_fails_where_the_next_relay_is_reached_without() -> None:
    """T11, SEC-29."""
    internet = Internet()
    near = "127.0.0.2"
    known = [by_address("a.test", "127.0.0.1"), by_address("b.test", near)]
    a = await Node(internet, "a.test", "127.0.0.1", [route("b.test", f"tcp://{near}")], known).start()
    await Node(internet, "b.test", near, [], known).start()
    operation = a.operation("secret", "im:alice@a.test", "im:bob@b.test")
    accepted = await a.submit(replace(operation, requirements=frozenset({Requirement.TLS})))
    assert isinstance(accepted, Accepted)
    assert accepted.outcome.result().reason is Reason.PROTECTION
    assert internet.data_count() == 0


# --- what a relay may say of itself --------------------------------------------------------------------------------------


@in_loop
async def test_bind_is_for_domains_that_the_certificate_names() -> None:
    """APEX-9: 555, 537; P-25: one of our domains, a stranger's, nothing proved (534)."""
    node = await Node(Internet(), "b.test", B).start()
    relay = await node.stranger("a.test", "d.test")
    channel = min(relay.session.channels)
    assert await relay.say(channel, Bind("a.test", 1)) == Ok()
    assert code(await relay.say(channel, Bind("d.test", 1))) == 555
    assert await relay.say(channel, Bind("d.test", 2)) == Ok()
    assert code(await relay.say(channel, Bind("b.test", 3))) == 537
    assert code(await relay.say(channel, Bind("c.test", 4))) == 537
    assert code(await relay.say(channel, Bind("a.test", 5, (Option("odd", must_understand=True),)))) == 504
    stranger = await node.stranger()
    assert code(await stranger.say(channel, Bind("a.test", 1))) == 534
    assert code(await stranger.say(channel, Bind("b.test", 1))) == 537


@in_loop
async def test_binding_ends_by_terminate_by_its_channel_and_by_its_session() -> None:
    """APEX-9: terminate of one, of none such (550), of all with 0; RFC 3340 section 6.1.1: of the channel."""
    node = await Node(Internet(), "b.test", B).start()
    relay = await node.stranger("a.test")
    first, second = min(relay.session.channels), await relay.open()
    mesh = node.binding._mesh
    for channel in (first, second):
        assert await relay.say(channel, Bind("a.test", 1)) == Ok(), "transIDs are of their channel"
    assert await relay.terminate(1, first) == Ok()
    assert code(await relay.terminate(1, first)) == 550
    assert mesh.bound("a.test") is not None
    assert await relay.say(first, Bind("a.test", 2)) == Ok()
    assert await relay.terminate(0, first) == Ok()
    assert mesh.bound("a.test") is None
    assert await relay.say(second, Bind("a.test", 3)) == Ok()
    relay.session.close_channel(second)
    await node.settle()
    assert mesh.bound("a.test") is None
    assert await relay.say(first, Bind("a.test", 4)) == Ok()
    await relay.lose()
    assert mesh.bound("a.test") is None


@in_loop
async def test_data_before_a_bind_is_refused_and_the_channel_lives() -> None:
    """P-21."""
    node = await Node(Internet(), "b.test", B).start()
    bob, relay = await node.online("bob@b.test"), await node.stranger("a.test")
    assert code(await relay.send("alice@a.test", "bob@b.test", content=GIF)) == 530
    assert await relay.say(min(relay.session.channels), Bind("a.test", 1)) == Ok()
    assert await relay.send("alice@a.test", "bob@b.test", content=GIF) == Ok()
    assert bob.contents == [GIF]


@in_loop
async def test_relay_may_not_speak_for_a_domain_it_did_not_prove() -> None:
    """APEX-12: 537 (RFC 3340 section 4.5.2); neither for a stranger's nor for one of our own, nor for their services."""
    node = await Node(Internet(), "b.test", B).start()
    bob, relay = await node.online("bob@b.test"), await node.stranger("a.test")
    await relay.say(min(relay.session.channels), Bind("a.test", 1))
    for forged in ("mallory@c.test", "carol@b.test", "apex=report@b.test", "apex=report@c.test"):
        assert code(await relay.send(forged, "bob@b.test", content=GIF)) == 537, forged
    assert bob.data == []


@in_loop
async def test_relay_that_nobody_knows_is_refused_when_it_calls_and_gets_nothing_from_us_to_send() -> None:
    """P-25 from the caller's side: a refused bind is trouble with the hop, and the message waits."""
    internet = Internet()
    internet.records = {"b.test": [B]}
    a = await Node(internet, "a.test", A, [route("b.test")], names=[]).start()
    await Node(internet, "b.test", B).start()
    alice = await a.online("alice@a.test")
    assert await alice.send("alice@a.test", "bob@b.test", content=GIF, options=[status_request(86)]) == Ok()
    assert b"code='534'" in b"".join(octets for near, _, octets in internet.wire if near == "b.test")
    assert internet.data_count() == 0
    assert alice.reports == []


# --- a sender who does not speak APEX ----------------------------------------------------------------------------------


@in_loop
async def test_sender_by_sip_is_told_of_what_fails_behind_the_next_relay() -> None:
    """We ask for the status in her name; the statusResponse becomes a report of the service, once."""
    _internet, a, _b = await pair()
    phone = await a.phone("alice")
    operation = a.operation("hi", "im:alice@a.test", "im:nobody@b.test", native_id="call-1")
    accepted = await a.submit(operation)
    assert isinstance(accepted, Accepted)
    [delivery] = phone.deliveries
    report = delivery.operation.context.report
    assert report is not None
    assert (report.fate, report.reason, report.native_id) == (Fate.FAILED, Reason.NO_SUCH_USER, "call-1")
    assert report.recipient.uri == "im:nobody@b.test"


@in_loop
async def test_status_that_comes_after_a_kill_is_told_too() -> None:
    """The transID is the beginning of the fingerprint: what the store holds is enough."""
    internet, a, b = await pair()
    bob = await b.online("bob@b.test")
    bob.answer = lambda element: None
    await a.submit(a.operation("hi", "im:alice@a.test", "im:bob@b.test", native_id="call-1"))
    assert len(bob.data) == 1, "he has not said what he thinks of it"
    a.kill()
    again = await a.restart()
    phone = await again.phone("alice")
    waiting = bob.unanswered.pop()
    bob.session.answer(waiting.channel, waiting.msgno, Error(504, "no such thing here"))
    await internet.pass_time(40)
    [delivery] = phone.deliveries
    report = delivery.operation.context.report
    assert report is not None
    assert (report.reason, report.native_id) == (Reason.CONTENT, "call-1")


@in_loop
async def test_sender_by_sip_hears_nothing_of_what_was_delivered() -> None:
    _internet, a, b = await pair()
    phone, bob = await a.phone("alice"), await b.online("bob@b.test")
    await a.submit(a.operation("hi", "im:alice@a.test", "im:bob@b.test"))
    assert len(bob.data) == 1
    assert phone.deliveries == []


# --- what may go wrong with a session -----------------------------------------------------------------------------------


@in_loop
async def test_session_lost_before_the_ok_loses_nothing_and_repeats_nothing() -> None:
    """Reliability.md section 5.3: the retry is recognised by Content-ID and fingerprint."""
    internet, a, b = await pair()
    alice, bob = await a.online("alice@a.test"), await b.online("bob@b.test")
    await alice.send("alice@a.test", "bob@b.test", content=GIF)
    ours = internet.links[0]
    assert ours.other is not None
    theirs = ours.other
    again = Data(
        Originator(Endpoint.parse("alice@a.test")),
        (Recipient(Endpoint.parse("bob@b.test")),),
        replace(GIF, content_id="3@a.test"),
    )
    alice.session.send(min(alice.session.channels), again)
    # b takes it, says ok, and the session breaks on the way back.
    for _ in range(50):
        await settle(12)
        alice.exchange()
        internet._carry(ours)
        if b"RPY" in theirs.written:
            break
    assert b"RPY" in theirs.written
    ours.lose()
    await internet.pass_time(5)
    assert [part.content_id for part in bob.contents if isinstance(part, Part)] == ["2@a.test", "3@a.test"]
    assert len(internet.calls) == 2


@in_loop
async def test_relay_that_never_answers_is_given_up_and_called_again() -> None:
    """Reliability.md section 5.5: one attempt waits 32 s."""
    internet, a, b = await pair()
    alice = await a.online("alice@a.test")
    await alice.send("alice@a.test", "bob@b.test", content=GIF)
    ours = internet.links[0]
    assert ours.other is not None
    ours.other.session = None  # it reads and says nothing
    ours.other.receive = lambda data: None  # type: ignore[method-assign]
    await alice.send("alice@a.test", "bob@b.test", content=replace(GIF, content_id="3@a.test"))
    await internet.pass_time(30)
    assert not ours.is_closed
    await internet.pass_time(10)
    assert ours.is_closed
    bob = await b.online("bob@b.test")
    assert [part.content_id for part in bob.contents if isinstance(part, Part)] == ["2@a.test", "3@a.test"]


@in_loop
async def test_relay_that_closes_our_channel_and_stays_gathers_no_sessions() -> None:
    internet, a, b = await pair()
    alice = await a.online("alice@a.test")
    for number in range(5):
        assert (
            await alice.send("alice@a.test", "bob@b.test", content=replace(GIF, content_id=f"{number}@a.test")) == Ok()
        )
        [theirs] = [link for link in internet.links if link.node is b and not link.is_closed]
        assert isinstance(theirs.session, ApexSession)
        theirs.session.close_channel(max(theirs.session.channels))
        theirs.flush()
        await internet.settle()
        assert all(link.is_closed for link in internet.links)
    bob = await b.online("bob@b.test")
    assert len(bob.data) == 5


@in_loop
async def test_full_inbox_over_there_is_told_at_once_and_holds_up_nobody() -> None:
    """The refusal is about one recipient: were it "not now", everybody's messages for that domain would wait with it."""
    internet = Internet()
    internet.records = {"a.test": [A], "b.test": [B]}
    a = await Node(internet, "a.test", A, [route("b.test")]).start()
    b = await Node(internet, "b.test", B, [route("a.test")], limits=Limits(inbox_records=1)).start()
    alice, carol = await a.online("alice@a.test"), await b.online("carol@b.test")
    for number in range(3):
        assert (
            await alice.send("alice@a.test", "bob@b.test", content=replace(GIF, content_id=f"{number}@a.test")) == Ok()
        )
        assert (
            await alice.send("alice@a.test", "carol@b.test", content=replace(GIF, content_id=f"c{number}@a.test"))
            == Ok()
        )
        assert len(carol.data) == number + 1
    assert not await a.store.lanes()
    assert [lane.pending for lane in await b.store.lanes()] == [1]


@in_loop
async def test_sessions_with_other_relays_are_bounded_and_the_idle_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A route of everybody: whoever has many domains of his own has not as many sessions of ours."""
    monkeypatch.setattr("comity.bindings.apex.mesh.MOST_ROADS", 3)
    internet = Internet()
    a = await Node(internet, "a.test", A, [route("*")]).start()
    domains = [f"d{number}.test" for number in range(6)]
    for number, domain in enumerate(domains):
        internet.records[domain] = [f"192.0.2.{number + 10}"]
        await Node(internet, domain, f"192.0.2.{number + 10}", [route("a.test")]).start()
    alice = await a.online("alice@a.test")
    for number, domain in enumerate(domains):
        assert (
            await alice.send("alice@a.test", f"bob@{domain}", content=replace(GIF, content_id=f"{number}@a.test"))
            == Ok()
        )
        await internet.pass_time(5)
        assert sum(not link.is_closed for link in internet.links if link.node is a) <= 3
    assert not await a.store.lanes()


@in_loop
async def test_data_over_which_the_next_relay_fails_is_given_up_in_the_end() -> None:
    """F-POISON: 451 every time is this data's doing; its sender is told, and what is for others went by long before."""
    internet, a, b = await pair()
    phone, carol = await a.phone("alice"), await b.online("carol@b.test")
    took, tries = b.binding._relaying.data, 0

    def fail(connection: Connection, data: Data) -> asyncio.Future[Ok | Error]:
        nonlocal tries
        if str(data.recipients[0].identity) != "bob@b.test":
            return took(connection, data)
        tries += 1
        return answered(Error(451, "local error in processing"))

    b.binding._relaying.data = fail  # type: ignore[method-assign]
    await a.submit(a.operation("poison", "im:alice@a.test", "im:bob@b.test"))
    for number in range(2 * MOST_ATTEMPTS):
        await a.submit(a.operation(f"{number}", "im:alice@a.test", "im:carol@b.test"))
        await internet.pass_time(2)
    assert len(carol.data) == 2 * MOST_ATTEMPTS
    assert tries == MOST_ATTEMPTS + 1
    [delivery] = phone.deliveries
    report = delivery.operation.context.report
    assert report is not None
    assert report.reason is Reason.INTERNAL
    assert not await a.store.lanes()


@in_loop
async def test_session_that_nobody_uses_is_released_and_another_made_when_needed() -> None:
    internet, a, b = await pair()
    alice = await a.online("alice@a.test")
    await alice.send("alice@a.test", "bob@b.test", content=GIF)
    await internet.pass_time(290)
    assert not internet.links[0].is_closed
    await internet.pass_time(20)
    assert internet.links[0].is_closed
    assert b"<close number='0'" in b"".join(octets for _, _, octets in internet.wire)
    await alice.send("alice@a.test", "bob@b.test", content=replace(GIF, content_id="3@a.test"))
    bob = await b.online("bob@b.test")
    assert len(bob.data) == 2


# --- the chain -----------------------------------------------------------------------------------------------------------


@in_loop
async def test_chain_of_three_relays_delivers_and_reports() -> None:
    """SEED-1, APEX-12: b passes on between a and c, c believes b as an intermediary; content equal, three nodes in the history."""
    internet, a, _b, c = await chain()
    alice, carol = await a.online("alice@a.test"), await c.online("carol@c.test")
    assert await alice.send("alice@a.test", "carol@c.test", content=GIF, options=[status_request(86)]) == Ok()
    assert carol.contents == [GIF]
    assert alice.reports == [(86, "carol@c.test", 250)]
    history = option_of(carol.data[0], "urn:comity:history:0").content
    assert [node in history for node in (b'node="a.test"', b'node="b.test"', b'node="c.test"')] == [True] * 3
    assert history.count(b"<hop ") == 3
    assert (internet.data_count("a.test", "b.test"), internet.data_count("b.test", "c.test")) == (1, 1)


@in_loop
async def test_relay_passes_between_foreign_domains_only_where_a_route_says_so() -> None:
    internet, a, b, _c = await chain()
    b.pipeline.routes._routes["c.test"] = route("c.test", f"tls://{C}")  # type: ignore[attr-defined]
    alice = await a.online("alice@a.test")
    assert await alice.send("alice@a.test", "carol@c.test", content=GIF, options=[status_request(86)]) == Ok()
    assert [report[:2] for report in alice.reports] == [(86, "carol@c.test")]
    assert alice.reports[0][2] >= 500
    assert internet.data_count("b.test", "c.test") == 0


@in_loop
async def test_every_relay_answers_a_status_request_that_is_for_all() -> None:
    """RFC 3340 section 5.1: "a trace of a data's passage through the relaying mesh"."""
    _internet, a, _b, c = await chain()
    alice, _ = await a.online("alice@a.test"), await c.online("carol@c.test")
    await alice.send("alice@a.test", "carol@c.test", content=GIF, options=[status_request(86, target_hop="all")])
    said = [str(data.originator.identity) for data in alice.data]
    assert sorted(said) == ["apex=report@a.test", "apex=report@b.test", "apex=report@c.test"]
    assert alice.reports == [(86, "carol@c.test", 250)] * 3


@in_loop
async def test_options_are_passed_on_as_they_came_but_for_what_each_relay_changes() -> None:
    """APEX-13: targetHop this is removed, unknown ones for the last hop or all stay; APEX-15: one hop less at every relay."""
    _internet, a, _b, c = await chain()
    alice, carol = await a.online("alice@a.test"), await c.online("carol@c.test")
    options = [
        Option(external="urn:x:this", target_hop="this", trans_id=1),
        Option(external="urn:x:final", trans_id=2, content=b"<x xmlns='urn:x'>&amp; <![CDATA[y]]></x>"),
        Option(external="urn:x:all", target_hop="all", trans_id=3, localize="de en"),
        hopping(9),
    ]
    await alice.send("alice@a.test", "carol@c.test", content=GIF, options=options)
    [data] = carol.data
    assert [option for option in data.options if option.name.startswith("urn:x:")] == options[1:3]
    arrived = option_of(data, "dataHopping")
    assert (arrived.trans_id, arrived.must_understand, arrived.target_hop) == (7, True, "all")
    assert read_option_content(arrived, "dataHopping") == DataHopping(7)


@in_loop
async def test_option_that_the_last_relay_must_understand_and_does_not_fails_there() -> None:
    """P-28 behind two relays that it is not for."""
    _, a, _b, c = await chain()
    alice, carol = await a.online("alice@a.test"), await c.online("carol@c.test")
    options = [Option(external="urn:x:final", must_understand=True, trans_id=2), status_request(86)]
    await alice.send("alice@a.test", "carol@c.test", content=GIF, options=options)
    assert alice.reports == [(86, "carol@c.test", 504)]
    assert carol.data == []


@in_loop
async def test_time_spent_at_a_relay_is_taken_off_and_late_data_is_reported_and_not_sent() -> None:
    """APEX-16; RFC 3342 sections 2.1 and 2.1.2."""
    internet, a, _b, c = await chain()
    alice = await a.online("alice@a.test")
    c.kill()
    late, early = replace(GIF, content_id="late@a.test"), replace(GIF, content_id="early@a.test")
    early_timing = timing(8, no_later_than=600_000, report_errors=True)
    await alice.send(
        "alice@a.test", "carol@c.test", content=late, options=[timing(7, no_later_than=5_000, report_errors=True)]
    )
    await alice.send("alice@a.test", "carol@c.test", content=early, options=[early_timing])
    await internet.pass_time(20)
    assert alice.reports == [(7, "carol@c.test", 550)]
    carol = await (await c.restart()).online("carol@c.test")
    await internet.pass_time(40)
    assert carol.contents == [early]
    left = read_option_content(option_of(carol.data[0], "dataTiming"), "dataTiming").no_later_than
    assert 500_000 < left <= 580_000
    assert alice.reports == [(7, "carol@c.test", 550)]


@in_loop
async def test_delay_at_a_relay_on_the_way_is_reported_with_350_and_final_delivery_with_250() -> None:
    """RFC 3342 sections 2.1.1 and 2.2."""
    internet, a, _b, c = await chain()
    alice = await a.online("alice@a.test")
    c.kill()
    asked = timing(7, report_after=5_000, return_trip=60_000, no_later_than=600_000)
    await alice.send("alice@a.test", "carol@c.test", content=GIF, options=[asked])
    await internet.pass_time(20)
    assert alice.reports == [(7, "carol@c.test", 350)]
    await (await c.restart()).online("carol@c.test")
    await internet.pass_time(40)
    assert alice.reports == [(7, "carol@c.test", 350), (7, "carol@c.test", 250)]


# --- loops ---------------------------------------------------------------------------------------------------------------


async def ring() -> tuple[Internet, Node]:
    """Every relay believes that its neighbour knows the way to lost.test: a, b, c and around again between b, c and d."""
    internet = Internet()
    hosts = {"a.test": A, "b.test": B, "c.test": C, "d.test": "192.0.2.4"}
    after = {"a.test": "b.test", "b.test": "c.test", "c.test": "d.test", "d.test": "b.test"}
    known = [by_certificate(domain, "*") for domain in hosts]
    for domain, host in hosts.items():
        routes = [route("lost.test", f"tls://{hosts[after[domain]]}", "*"), route("a.test", f"tls://{A}", "*")]
        await Node(internet, domain, host, routes, known, names=[domain, host]).start()
    return internet, internet.nodes[A]


@in_loop
async def test_loop_is_seen_by_the_history_and_reported() -> None:
    """GW-8, GW-9, APEX-15: the first relay it passes again refuses it; 550 to the originator; nothing goes round twice."""
    internet, a = await ring()
    alice = await a.online("alice@a.test")
    assert await alice.send("alice@a.test", "bob@lost.test", content=GIF, options=[status_request(86)]) == Ok()
    assert alice.reports == [(86, "bob@lost.test", 550)]
    contents = sum(octets.count(b"image/gif") for _, _, octets in internet.wire)
    assert contents == 4, "a to b, b to c, c to d, and d to b, which refuses"


@in_loop
async def test_loop_without_history_ends_when_its_hops_are_used_up_and_is_reported() -> None:
    """APEX-15: relays that know nothing of our history still count."""
    internet, a = await ring()
    internet.is_masked = True
    alice = await a.online("alice@a.test")
    options = [status_request(86), hopping(12, 7, reports=True)]
    assert await alice.send("alice@a.test", "bob@lost.test", content=GIF, options=options) == Ok()
    assert sorted(alice.reports) == [(7, "bob@lost.test", 550), (86, "bob@lost.test", 550)]
    contents = sum(octets.count(b"image/gif") for _, _, octets in internet.wire)
    assert contents == 11, "sent by every relay that held more than 1"


@in_loop
async def test_loop_back_to_the_originators_own_relay_is_one() -> None:
    """The data comes back in our own user's name: not forged, as its history says, but a loop."""
    internet = Internet()
    hosts = {"a.test": A, "b.test": B, "c.test": C}
    after = {"a.test": B, "b.test": C, "c.test": A}
    known = [by_certificate(domain, "*") for domain in hosts]
    for domain, host in hosts.items():
        routes = [route("lost.test", f"tls://{after[domain]}", "*"), route("a.test", f"tls://{A}", "*")]
        await Node(internet, domain, host, routes, known, names=[domain, host]).start()
    alice = await internet.nodes[A].online("alice@a.test")
    assert await alice.send("alice@a.test", "bob@lost.test", content=GIF, options=[status_request(86)]) == Ok()
    assert alice.reports == [(86, "bob@lost.test", 550)]
    assert sum(octets.count(b"image/gif") for _, _, octets in internet.wire) == 3


@in_loop
async def test_relay_is_read_from_at_a_relays_rate_and_not_at_a_persons() -> None:
    """Reliability.md section 6.2: 500 messages a second of one peer; who calls and who is called alike."""
    internet, a, b = await pair()
    alice = await a.online("alice@a.test")
    await alice.send("alice@a.test", "bob@b.test", content=GIF)
    for node in (a, b):
        [connection] = [each for each in node.binding._ground.connections.values() if each.domains]
        for _ in range(1900):
            connection.rates.take(1, 100, internet.clock.now())
        assert connection.rates.debt(internet.clock.now()) == 0
        connection.rates.take(500, 100, internet.clock.now())
        assert connection.rates.debt(internet.clock.now()) > 0


@in_loop
async def test_relay_that_takes_its_binding_back_and_says_nothing_holds_up_nobody_for_ever() -> None:
    """Reliability.md section 5.5: an unanswered data has its end also where its sender is bound as nothing any more."""
    node = await Node(Internet(), "b.test", B, [route("a.test")]).start()
    bob, relay = await node.online("bob@b.test"), await node.stranger("a.test")
    channel = min(relay.session.channels)
    relay.answer = lambda element: None
    assert await relay.say(channel, Bind("a.test", 1)) == Ok()
    await bob.send("bob@b.test", "alice@a.test", content=GIF)
    assert len(relay.data) == 1
    assert await relay.terminate(1, channel) == Ok()
    await node.internet.pass_time(40)
    assert relay.link.is_closed


@in_loop
async def test_relay_that_sends_with_the_very_ok_to_our_bind_is_heard() -> None:
    """It knows us from then on, and need not wait for our first data."""
    internet, a, b = await pair()
    alice, bob = await a.online("alice@a.test"), await b.online("bob@b.test")
    internet.records["a.test"] = []
    await bob.send("bob@b.test", "alice@a.test", content=replace(GIF, content_id="b@b.test"))
    assert alice.data == []
    took = b.binding._relaying.bind

    def bind_and_send(*arguments: object) -> Ok | Error:
        asyncio.get_running_loop().call_soon(b.pipeline.delivery.wake, "hop/apex:a.test")
        return took(*arguments)  # type: ignore[arg-type]  # as they came

    b.binding._relaying.bind = bind_and_send  # type: ignore[method-assign, assignment]
    await alice.send("alice@a.test", "bob@b.test", content=GIF)
    assert [part.content_id for part in alice.contents if isinstance(part, Part)] == ["b@b.test"]
    assert bob.contents == [GIF]


@in_loop
async def test_domain_that_only_got_the_same_object_cannot_report_about_another() -> None:
    """T1: it knows the fingerprint, and so our transID; the recipient's own domain it is not."""
    internet, a, b = await pair()
    phone, bob, evil = await a.phone("alice"), await b.online("bob@b.test"), await a.stranger("evil.test")
    accepted = await a.submit(a.operation("hi", "im:alice@a.test", "im:bob@b.test"))
    assert isinstance(accepted, Accepted)
    asked = option_of(bob.data[0], "statusRequest")
    forged = StatusResponse(asked.trans_id, (Destination(Endpoint.parse("bob@b.test"), Reply(550)),))
    await evil.say(min(evil.session.channels), Bind("evil.test", 1))
    content = Inline(write_service(forged))
    assert await evil.send("apex=report@evil.test", "alice@a.test", content=content) == Ok()
    await internet.pass_time(2)
    assert phone.deliveries == []
    honest = await a.stranger("b.test")
    await honest.say(min(honest.session.channels), Bind("b.test", 1))
    assert await honest.send("apex=report@b.test", "alice@a.test", content=content) == Ok()
    await internet.pass_time(2)
    assert len(phone.deliveries) == 1
