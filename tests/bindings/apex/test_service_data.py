"""Data from and to well-known endpoints between domains: at once or not at all, never without end (RFC 3340 sections 1.1 and 6)."""

from __future__ import annotations

from datetime import timedelta

from comity.bindings.apex.elements import (
    AccessEntry,
    Bind,
    Data,
    Destination,
    Error,
    Inline,
    Ok,
    Option,
    Originator,
    Part,
    Presence,
    Publish,
    Query,
    Recipient,
    Reply,
    ServiceElement,
    Set,
    StatusResponse,
    Subscribe,
    Terminate,
    Tuple,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.service_data import MOST_BEFORE
from comity.bindings.apex.service_wire import read_service, write_service
from tests.bindings.apex.internet import Internet, Node, by_certificate, route, status_request
from tests.bindings.apex.world import Application
from tests.loop import in_loop

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"
ALICE, BOB = Endpoint.parse("alice@a.test"), Endpoint.parse("bob@b.test")


async def pair() -> tuple[Internet, Node, Node]:
    """a.test and b.test with presence, who find each other by DNS and believe certificates."""
    internet = Internet()
    internet.records = {"a.test": [A], "b.test": [B]}
    a = await Node(internet, "a.test", A, [route("b.test")], has_presence=True).start()
    b = await Node(internet, "b.test", B, [route("a.test")], has_presence=True).start()
    return internet, a, b


def inline(element: ServiceElement) -> Inline:
    return Inline(write_service(element))


def heard(application: Application) -> list[tuple[str, ServiceElement]]:
    """(who, what) of everything that services said to it."""
    return [(str(data.originator.identity), read_service(data.content)) for data in application.data]


def code(answer: Ok | Error | None) -> int:
    assert isinstance(answer, Error)
    return answer.code


@in_loop
async def test_service_of_another_domain_is_asked_and_answers() -> None:
    """APEX-23 over two relays: local endpoint to foreign service, and its answer back to the endpoint."""
    _, a, b = await pair()
    alice = await a.online("alice@a.test")
    query = Query(BOB, ALICE, ("core:data",), 17)
    assert await alice.send("alice@a.test", "apex=access@b.test", content=inline(query)) == Ok()
    [(who, answer)] = heard(alice)
    assert (who, answer) == ("apex=access@b.test", Reply(537, 17, "The owner does not permit that.", "en"))
    assert b.binding._mesh.bound("a.test") is not None


@in_loop
async def test_presence_is_subscribed_published_and_ended_between_two_domains() -> None:
    """APEX-17, RFC 3343 section 4: subscribe from one domain, publish in the other, told at once and at every change."""
    internet, a, b = await pair()
    alice, bob = await a.online("alice@a.test"), await b.online("bob@b.test")
    rule = Set(1, AccessEntry(BOB, "alice@a.test", ("core:data", "presence:subscribe")))
    assert await bob.send("bob@b.test", "apex=access@b.test", content=inline(rule)) == Ok()
    assert await alice.send("alice@a.test", "apex=presence@b.test", content=inline(Subscribe(BOB, 3600, 5))) == Ok()
    [(who, first)] = heard(alice)
    assert (who, isinstance(first, Publish)) == ("apex=presence@b.test", True)
    until = internet.clock.when() + timedelta(hours=1)
    entry = Presence(BOB, "2026-01-01T00:00:00Z", "http://b.test/bob", (Tuple("apex:bob@b.test", until),))
    publish = Publish(BOB, 6, "2026-01-01T00:00:00Z", entry)
    assert await bob.send("bob@b.test", "apex=presence@b.test", content=inline(publish)) == Ok()
    await internet.pass_time(5)
    (_, told) = heard(alice)[-1]
    assert isinstance(told, Publish)
    assert (told.trans_id, told.presence.tuples[0].destination) == (5, "apex:bob@b.test")
    assert await alice.send("alice@a.test", "apex=presence@b.test", content=inline(Terminate(5))) == Ok()
    assert heard(alice)[-1] == ("apex=presence@b.test", Reply(250, 5))


@in_loop
async def test_status_of_what_a_service_was_told_is_given_by_its_relay() -> None:
    """RFC 3340 section 5.1; P-31: never for a statusResponse."""
    _, a, _ = await pair()
    alice = await a.online("alice@a.test")
    query = inline(Query(BOB, ALICE, ("core:data",), 17))
    await alice.send("alice@a.test", "apex=access@b.test", content=query, options=[status_request(3)])
    assert alice.reports == [(3, "apex=access@b.test", 250)]


@in_loop
async def test_what_cannot_be_for_a_service_here_gets_a_clear_error() -> None:
    """550 no such service, 501 no element, 504 an element or an option that it does not know, 553 no route."""
    _, a, b = await pair()
    relay = await b.stranger("c.test")
    await relay.say(min(relay.session.channels), Bind("c.test", 1))

    async def said(to: str, content: Inline | Part, *options: Option) -> int:
        return code(await relay.send("eve@c.test", to, content=content, options=options))

    query = inline(Query(BOB, Endpoint.parse("eve@c.test"), ("core:data",), 17))
    assert await said("apex=weather@b.test", query) == 550
    assert await said("apex=access@b.test", Part(b"Content-Type: text/plain\r\n", b"hello", "1@c.test")) == 501
    assert await said("apex=access@b.test", Inline(b"<odd />")) == 504
    assert await said("apex=report@b.test", query) == 504
    assert await said("apex=access@b.test", query, Option(external="urn:x", must_understand=True)) == 504
    assert await said("apex=access@nowhere.test", query) == 553
    alice = await a.online("alice@a.test")
    assert code(await alice.send("alice@a.test", "apex=access@nowhere.test", content=query)) == 553


@in_loop
async def test_nobody_asks_in_anothers_name() -> None:
    """SEC-33: what a foreign service is told comes from an endpoint of the relay's own domain."""
    _, _, b = await pair()
    relay = await b.stranger("c.test")
    await relay.say(min(relay.session.channels), Bind("c.test", 1))
    query = inline(Query(BOB, ALICE, ("core:data",), 17))
    assert code(await relay.send("alice@a.test", "apex=access@b.test", content=query)) == 537
    assert code(await relay.send("bob@b.test", "apex=access@b.test", content=query)) == 537


@in_loop
async def test_requests_of_one_originator_are_handled_in_their_order() -> None:
    _, a, _ = await pair()
    alice = await a.online("alice@a.test")
    channel = min(alice.session.channels)
    for number in range(1, 30):
        query = inline(Query(BOB, ALICE, ("core:data",), number))
        alice.session.send(channel, data_for("apex=access@b.test", query))
    await a.settle()
    answers = [element for _, element in heard(alice)]
    assert [answer.trans_id for answer in answers if isinstance(answer, Reply)] == list(range(1, 30))


def data_for(to: str, content: Inline) -> Data:
    return Data(Originator(ALICE), (Recipient(Endpoint.parse(to)),), content)


@in_loop
async def test_service_data_for_a_relay_that_cannot_be_reached_is_dropped_and_kept_nowhere() -> None:
    """RFC 3340 section 1.1: best effort; the sender of a service learns it by ``say``."""
    internet, a, b = await pair()
    alice = await a.online("alice@a.test")
    b.kill()
    query = inline(Query(BOB, ALICE, ("core:data",), 17))
    assert await alice.send("alice@a.test", "apex=access@b.test", content=query) == Ok()
    told = a.binding.say("report", "a.test", BOB, StatusResponse(4, (Destination(BOB, Reply(250)),)))
    await internet.settle()
    assert told.result() is False
    await b.restart()
    await internet.pass_time(60)
    assert heard(alice) == []
    assert internet.data_count() == 0


@in_loop
async def test_service_data_to_a_slow_relay_is_bounded() -> None:
    """A relay that takes and does not answer: more than the bound is refused with 450, and memory does not grow."""
    internet, a, _b = await pair()
    alice = await a.online("alice@a.test")
    query = inline(Query(BOB, ALICE, ("core:data",), 17))
    assert await alice.send("alice@a.test", "apex=access@b.test", content=query) == Ok()
    ours = internet.links[0]
    assert ours.other is not None
    ours.other.receive = lambda data: None  # type: ignore[method-assign]  # it reads and says nothing
    told = [
        a.binding.say("report", "a.test", BOB, StatusResponse(4, (Destination(BOB, Reply(250)),))) for _ in range(500)
    ]
    await internet.settle()
    assert sum(future.done() for future in told) == 500 - MOST_BEFORE - 32
    assert all(future.result() is False for future in told if future.done())
    assert code(await alice.send("alice@a.test", "apex=access@b.test", content=query)) == 450
    await internet.pass_time(40)
    assert all(future.done() for future in told), "the session was given up, and all it held with it"


@in_loop
async def test_service_data_that_is_misrouted_does_not_go_round() -> None:
    """GW-9 for data that is no message: by our own history option, else by dataHopping."""
    internet = Internet()
    hosts = {"a.test": A, "b.test": B, "c.test": C}
    after = {"a.test": B, "b.test": C, "c.test": B}
    known = [by_certificate(domain, "*") for domain in hosts]
    for domain, host in hosts.items():
        routes = [route("lost.test", f"tls://{after[domain]}", "*"), route("a.test", f"tls://{A}", "*")]
        await Node(internet, domain, host, routes, known, names=[domain, host]).start()
    alice = await internet.nodes[A].online("alice@a.test")
    query = inline(Query(BOB, ALICE, ("core:data",), 17))
    assert await alice.send("alice@a.test", "apex=access@lost.test", content=query) == Ok()
    assert internet.data_count() == 3, "a to b, b to c, c to b, which has seen it"
    internet.is_masked = True
    assert await alice.send("alice@a.test", "apex=access@lost.test", content=query) == Ok()
    assert internet.data_count() <= 3 + 128
