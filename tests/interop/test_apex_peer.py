"""Every exchange of APEX between the running server and the independent peer, as application and as relay (issue 6).

RFC 3340, 3341, 3342 and 3343 by the letter: elements, codes and transaction-identifiers are those of the texts.
"""

from __future__ import annotations

import asyncio
import ssl
import xml.etree.ElementTree as ET
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from comity.client import Received, text_object
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Response, Status
from tests.interop.apex_peer import APEX, Application, Data, Relay, data_payload, hopping, option, timing
from tests.interop.apex_peer_beep import TLS, Broken, Refused
from tests.paths.kit import ALICE, BOB, PASSWORD, Via
from tests.paths.relays import RelayServer, peer, route, servers

GIF = (
    b"Content-Type: image/gif\r\nX-Odd:  kept \r\nContent-Transfer-Encoding: binary\r\n",
    b"GIF89a\x00\r\n--peer-\r\nEND\r\n\xff",
)
PRESENCE = "apex=presence@a.test"
Result = TypeVar("Result")
FAR = Address.parse("im:carol@b.test")


@pytest.fixture(scope="module")
def relays(tmp_path_factory: pytest.TempPathFactory) -> tuple[RelayServer, RelayServer, Path]:
    """Our server of a.test; the keys of b.test, whose relay is the peer."""
    (ours, theirs), trust = servers(tmp_path_factory.mktemp("peer"), "a.test", "b.test")
    return ours, theirs, trust


@pytest.fixture(scope="module")
def relay(relays: tuple[RelayServer, RelayServer, Path]) -> Iterator[Relay]:
    """The relay of b.test, which asks for TLS and a certificate."""
    _, theirs, trust = relays
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls = theirs.directory / "data" / "tls"
    context.load_cert_chain(tls / "server.pem", tls / "server.key")
    context.load_verify_locations(trust)
    context.verify_mode = ssl.CERT_REQUIRED
    relay = Relay("b.test", context, at_once=True)
    yield relay
    relay.close()
    assert relay.broken == []


@pytest.fixture(scope="module")
def server(relays: tuple[RelayServer, RelayServer, Path], relay: Relay) -> Iterator[RelayServer]:
    """a.test, which reaches b.test by APEX at the peer."""
    ours, _, trust = relays
    ours.join(trust, route("b.test", f"tls://127.0.0.1:{relay.port}"), peer("b.test", "b.test"))
    with ours:
        ours.start()
        yield ours
        assert ours.stop() == 0


@contextmanager
def person(server: RelayServer, name: str, *endpoints: str) -> Iterator[Application]:
    """Signed in by the TLS profile and SCRAM, attached as `name@a.test` unless told otherwise; released at the end."""
    context = ssl.create_default_context(cafile=str(server.authority))
    with Application(*server.port("apex", "tcp"), tls=context, name="localhost") as application:
        application.sign_in(f"{name}@a.test", PASSWORD)
        for endpoint in endpoints or (f"{name}@a.test",):
            application.attach(endpoint)
        yield application
        while application.session.requests:  # what came unasked is owed an answer, or the server is "still working"
            application.receive()
        application.release()


@pytest.fixture
def alice(server: RelayServer) -> Iterator[Application]:
    with person(server, "alice") as application:
        yield application


@pytest.fixture
def bob(server: RelayServer) -> Iterator[Application]:
    with person(server, "bob") as application:
        yield application


def report(data: Data) -> tuple[str, str, str, str]:
    """(who reports, transID, about whom, code)."""
    assert data.inline is not None
    (response,) = data.inline
    assert response.tag == "statusResponse", ET.tostring(response)
    ((destination, (reply,)),) = [(one, list(one)) for one in response]
    return data.originator, response.get("transID", ""), destination.get("identity", ""), reply.get("code", "")


def said(data: Data, service: str = PRESENCE) -> ET.Element:
    """The one element of a service's answer."""
    assert data.originator == service
    assert data.inline is not None
    (element,) = data.inline
    return element


# -- attach, terminate -----------------------------------------------------------------------------------------------------


def test_greetings_say_what_is_there_and_differ_under_tls(server: RelayServer) -> None:
    """RFC 3080, section 3.1: under TLS no TLS is offered again; PLAIN only there (APEX-7)."""
    context = ssl.create_default_context(cafile=str(server.authority))
    with Application(*server.port("apex", "tcp")) as application:
        before = set(application.profiles)
        after = set(application.session.start_tls(context, "localhost"))
        assert {APEX, TLS} <= before
        assert TLS not in after
        assert "http://iana.org/beep/SASL/PLAIN" in after - before
    with Application(*server.port("apex", "tls"), tls=context, name="localhost", at_once=True) as application:
        assert set(application.profiles) == after
        application.sign_in("alice@a.test", PASSWORD, "PLAIN")
        application.attach("alice@a.test")


def test_an_attachment_is_taken_over_by_override_only(
    server: RelayServer, alice: Application, bob: Application
) -> None:
    """RFC 3342, section 1: the first is told 556 with its own transID; what comes then goes to the second."""
    first = alice
    with person(server, "alice", "alice/second@a.test") as second:
        with pytest.raises(Refused, match="554"):
            second.attach("alice@a.test")
        second.attach("alice@a.test", option("attachOverride", 3))
        told = first.terminated()
        assert (told.get("transID"), told.get("code")) == ("1", "556")
        bob.data("bob@a.test", "alice@a.test", part=GIF)
        assert second.receive().body == GIF[1]
        with pytest.raises(Refused, match=r"530|537"):
            first.data("alice@a.test", "bob@a.test", part=GIF)


def test_terminate_releases_one_or_all(server: RelayServer, alice: Application) -> None:
    """RFC 3340, section 4.4.3: 550 for an unknown transaction; 0 means everything of the session."""
    other = alice.attach("alice/other@a.test")
    alice.data("alice/other@a.test", "alice@a.test", part=GIF)
    alice.receive()
    alice.terminate(other)
    with pytest.raises(Refused, match="537"):
        alice.data("alice/other@a.test", "alice@a.test", part=GIF)
    with pytest.raises(Refused, match="550"):
        alice.terminate(other)
    alice.terminate(0)
    with pytest.raises(Refused, match="530"):
        alice.data("alice@a.test", "alice@a.test", part=GIF)
    alice.attach("alice@a.test")


def test_several_channels_of_one_session(server: RelayServer, alice: Application, bob: Application) -> None:
    """An endpoint a channel; each gets its own data on it (2.: several attachments per session)."""
    first, alice.channel = alice.channel, 0
    alice.attach("alice/wb@a.test")
    assert alice.channel != first
    bob.data("bob@a.test", ["alice@a.test", "alice/wb@a.test"], part=GIF)
    got = [alice.receive() for _ in range(2)]
    assert {(one.recipients[0], one.request.channel) for one in got} == {
        ("alice@a.test", first),
        ("alice/wb@a.test", alice.channel),
    }


# -- data ------------------------------------------------------------------------------------------------------------------


def test_content_goes_unchanged_with_its_own_headers(alice: Application, bob: Application) -> None:
    """APEX-10, APEX-11: a MIME part, and in-line XML, to an endpoint that speaks APEX too."""
    alice.data("alice@a.test", "bob@a.test", part=GIF, content_id="17@a.test")
    got = bob.receive()
    assert got.body == GIF[1]
    assert got.header("Content-Type") == "image/gif"
    assert b"X-Odd:  kept \r\n" in got.headers
    assert got.element.get("content") == "cid:17@a.test"
    inline = "<game xmlns='urn:example:chess'>\r\n  <!-- a comment --><move a='&#65;'>e2 &lt; e4</move></game>"
    alice.data("alice@a.test", "bob@a.test", inline=inline)
    assert inline.encode() in bob.receive().request.payload
    large = (GIF[0], bytes(range(256)) * 450)
    alice.data("alice@a.test", "bob@a.test", part=large)
    assert bob.receive().body == large[1]


def test_every_recipient_gets_it_and_is_reported_on(alice: Application, bob: Application) -> None:
    """RFC 3340, sections 4.4.4.1 and 5.1: per recipient; 250 from who is there, 550 for who is nobody."""
    asked = option("statusRequest", 86, must=True)
    alice.data("alice@a.test", ["bob@a.test", "nobody@a.test"], part=GIF, options=asked)
    assert bob.receive().recipients == ["bob@a.test"]
    reports = {report(alice.receive()) for _ in range(2)}
    assert reports == {
        ("apex=report@a.test", "86", "bob@a.test", "250"),
        ("apex=report@a.test", "86", "nobody@a.test", "550"),
    }
    alice.data("alice@a.test", "bob@a.test", part=GIF, per_recipient=option("statusRequest", 87))
    bob.receive()
    assert report(alice.receive())[1:] == ("87", "bob@a.test", "250")


def test_what_the_application_refuses_is_reported(alice: Application, bob: Application) -> None:
    """T7: the endpoint's own code comes back."""
    alice.data("alice@a.test", "bob@a.test", part=GIF, options=option("statusRequest", 4))
    bob.refuse(bob.receive(answer=False).request, "504", "no such thing here")
    assert report(alice.receive()) == ("apex=report@a.test", "4", "bob@a.test", "504")


def test_a_final_hop_report_has_its_own_deadline(alice: Application, bob: Application) -> None:
    """RFC 3342, section 2.1.1: 250 with a dataTiming of the returnTrip."""
    alice.data("alice@a.test", "bob@a.test", part=GIF, options=timing(86, noLaterThan=10000, returnTrip=20000))
    passed_on = bob.receive().option("dataTiming")
    assert passed_on is not None
    assert 0 < int(passed_on[0].get("noLaterThan", "0")) <= 10000
    final = alice.receive()
    assert report(final) == ("apex=report@a.test", "86", "bob@a.test", "250")
    back = final.option("dataTiming")
    assert back is not None
    assert (back.get("targetHop"), back.get("mustUnderstand")) == ("all", "true")
    assert 0 < int(back[0].get("noLaterThan", "0")) <= 20000


def test_what_waits_is_reported_once(server: RelayServer, alice: Application) -> None:
    """RFC 3342, section 2.2.1: 350 after reportAfter, asked for by nothing else; delivery is then told to nobody."""
    alice.data("alice@a.test", "bob@a.test", part=GIF, options=timing(86, reportAfter=200))
    assert report(alice.receive()) == ("apex=report@a.test", "86", "bob@a.test", "350")
    with person(server, "bob") as bob:
        assert bob.receive().body == GIF[1]
    with pytest.raises(TimeoutError):
        alice.receive(0.5)


def test_what_comes_too_late_is_reported_and_gone(server: RelayServer, alice: Application) -> None:
    """RFC 3342, section 2.1.2: 550 after noLaterThan. Takes up to 15 s: so often the server looks for what is too old."""
    late = option("hold4Endpoint", 3) + timing(86, noLaterThan=500, reportErrors="true")
    alice.data("alice@a.test", "bob@a.test", part=GIF, options=late)
    assert report(alice.receive(30)) == ("apex=report@a.test", "86", "bob@a.test", "550")
    with person(server, "bob") as bob, pytest.raises(TimeoutError):
        bob.receive(0.5)


def test_what_is_held_comes_when_the_endpoint_attaches(server: RelayServer, alice: Application) -> None:
    """RFC 3342, section 3: with what is left of its time."""
    options = "<option internal='hold4Endpoint' />" + timing(86, noLaterThan=60000)
    alice.data("alice@a.test", "bob@a.test", part=GIF, options=options)
    with person(server, "bob") as bob:
        held = bob.receive()
        assert held.body == GIF[1]
        left = held.option("dataTiming")
        assert left is not None
        assert 0 < int(left[0].get("noLaterThan", "0")) <= 60000


@pytest.mark.parametrize("via", ["sip", "xmpp"])
def test_objects_between_an_application_and_the_other_protocols(
    server: RelayServer, alice: Application, via: Via
) -> None:
    """GW-1, SEED-7: a message/cpim part is the object; what is none is wrapped once; both ways octets are equal."""

    async def exchange() -> tuple[Received, Received, Response]:
        async with server.client(via, BOB) as client:
            messages = client.messages()
            await asyncio.to_thread(
                alice.data, "alice@a.test", "bob@a.test", part=(b"Content-Type: message/cpim\r\n", sent)
            )
            first = await anext(messages)
            await asyncio.to_thread(alice.data, "alice@a.test", "bob@a.test", part=text)
            second = await anext(messages)
            following = asyncio.ensure_future(anext(messages))  # takes the second
            sending = asyncio.ensure_future(client.send(back, ALICE))
            data.append(await asyncio.to_thread(alice.receive))
            answer = await sending
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            return first, second, answer

    sent = text_object(ALICE, BOB, "Grüße ]]> & <x>").octets
    text = (b"Content-Type: text/plain; charset=utf-8\r\n", "bare text ü".encode())
    back = text_object(BOB, ALICE, "zurück")
    data: list[Data] = []
    first, second, answer = _run(exchange())
    assert first.object.octets == sent
    assert second.text == "bare text ü"
    assert second.from_ == ALICE
    assert answer.status is not Status.FAILURE
    assert data[0].originator.partition("/")[0].removesuffix("@a.test") == "bob"  # by XMPP with the resource
    assert data[0].header("Content-Type").startswith("message/cpim")
    assert data[0].body == back.octets


def _run(work: Coroutine[None, None, Result]) -> Result:
    async def bounded() -> Result:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())


# -- presence --------------------------------------------------------------------------------------------------------------


def publish(publisher: str, trans_id: int, last_update: str) -> str:
    """A presence entry with one tuple, open for an hour."""
    moment = datetime.now(UTC)
    until = (moment + timedelta(hours=1)).isoformat(timespec="seconds")
    return (
        f"<publish publisher='{publisher}' transID='{trans_id}' timeStamp='{moment.isoformat(timespec='seconds')}'>"
        f"<presence publisher='{publisher}' lastUpdate='{last_update}' publisherInfo='http://www.example.com/'>"
        f"<tuple destination='apex:{publisher}' availableUntil='{until}' /></presence></publish>"
    )


def test_presence_is_published_subscribed_watched_and_ended(alice: Application, bob: Application) -> None:
    """RFC 3343, sections 4.2 to 4.6: every element with the transID of the operation it answers."""

    def ask(who: Application, element: str) -> None:
        who.data(who.endpoint, PRESENCE, inline=element)

    access = "<access owner='alice@a.test' actor='bob@a.test' actions='core:data presence:subscribe' />"
    alice.data("alice@a.test", "apex=access@a.test", inline=f"<set transID='5'>{access}</set>")
    assert said(alice.receive(), "apex=access@a.test").get("code") == "250"
    assert said(alice.receive(), "apex=access@a.test").tag == "set"

    ask(alice, "<watch publisher='alice@a.test' duration='3600' transID='21' />")
    reply = said(alice.receive())
    assert (reply.tag, reply.get("code"), reply.get("transID")) == ("reply", "250", "21")

    ask(bob, "<subscribe publisher='alice@a.test' duration='3600' transID='100' />")
    first = said(bob.receive())
    assert (first.tag, first.get("transID"), first.get("publisher")) == ("publish", "100", "alice@a.test")
    notify = said(alice.receive())
    assert (notify.tag, notify.get("transID"), notify.get("subscriber"), notify.get("action")) == (
        "notify",
        "21",
        "bob@a.test",
        "subscribe",
    )

    ask(alice, "<subscribe publisher='alice@a.test' duration='0' transID='22' />")
    polled = said(alice.receive())
    presence = polled.find("presence")
    assert presence is not None
    ask(alice, publish("alice@a.test", 23, presence.get("lastUpdate", "")))
    answers = _until(alice, lambda one: one.tag == "reply")
    assert (answers[-1].get("code"), answers[-1].get("transID")) == ("250", "23")
    changed = said(bob.receive())
    assert (changed.tag, changed.get("transID")) == ("publish", "100")
    assert changed.find("presence/tuple") is not None

    ask(alice, publish("alice@a.test", 24, "2000-05-14T13:02:00-08:00"))
    stale = _until(alice, lambda one: one.tag == "reply")[-1]
    assert (stale.get("code"), stale.get("transID")) == ("555", "24")

    ask(bob, "<terminate transID='100' />")
    ended = _until(bob, lambda one: one.tag == "reply")[-1]
    assert (ended.get("code"), ended.get("transID")) == ("250", "100")
    gone = _until(alice, lambda one: one.tag == "notify" and one.get("action") == "terminate")[-1]
    assert (gone.get("transID"), gone.get("subscriber")) == ("21", "bob@a.test")
    ask(bob, "<terminate transID='100' />")
    unknown = said(bob.receive())
    assert (unknown.get("code"), unknown.get("transID")) == ("550", "100")


def _until(who: Application, is_last: Callable[[ET.Element], bool]) -> list[ET.Element]:
    """What the presence service says, up to the first element that is what was waited for."""
    heard: list[ET.Element] = []
    while not heard or not is_last(heard[-1]):
        heard.append(said(who.receive()))
        assert len(heard) < 10, [ET.tostring(one) for one in heard]
    return heard


def test_a_subscription_ends_in_its_time(alice: Application, bob: Application) -> None:
    """RFC 3343, section 4.2, step 6.3: the service says terminate."""
    bob.data("bob@a.test", PRESENCE, inline="<subscribe publisher='bob@a.test' duration='1' transID='7' />")
    assert said(bob.receive()).tag == "publish"
    ended = _until(bob, lambda one: one.tag == "terminate")[-1]
    assert ended.get("transID") == "7"


def test_a_subscription_to_nobody_looks_like_one_that_waits(bob: Application) -> None:
    """N-02: who may not see it is not told whether there is such an account; every tuple is past."""
    bob.data("bob@a.test", PRESENCE, inline="<subscribe publisher='nobody@a.test' duration='0' transID='9' />")
    answer = _until(bob, lambda one: one.get("transID") == "9")[-1]
    until = [one.get("availableUntil", "") for one in answer.iter("tuple")]
    assert answer.tag == "publish"
    assert until
    assert all(datetime.fromisoformat(one) <= datetime.now(UTC) for one in until)


@pytest.mark.parametrize(
    ("element", "code"),
    [
        ("<subscribe publisher='carol@c.test' duration='60' transID='9' />", "553"),
        ("<watch publisher='alice@a.test' duration='60' transID='9' />", "537"),
        ("<terminate transID='99' />", "550"),
    ],
)
def test_presence_refusals(bob: Application, element: str, code: str) -> None:
    """RFC 3343, sections 4.2 and 4.3: the steps in order."""
    bob.data("bob@a.test", PRESENCE, inline=element)
    assert _until(bob, lambda one: one.tag == "reply")[-1].get("code") == code


# -- relays ----------------------------------------------------------------------------------------------------------------


def test_our_server_binds_and_sends_to_the_peers_relay(server: RelayServer, relay: Relay, alice: Application) -> None:
    """RFC 3340, section 4.4.2: TLS, its certificate, bind as a.test, then the data, unchanged, with one hop less."""
    alice.data(
        "alice@a.test",
        "carol@b.test",
        part=GIF,
        options=hopping(5, noMoreThan=7) + option("urn:example:x", 6, hop="all"),
    )
    got = relay.arrived.get(timeout=20)
    assert relay.bound.get(timeout=1) == "a.test"
    assert (got.originator, got.recipients, got.body) == ("alice@a.test", ["carol@b.test"], GIF[1])
    hops = got.option("dataHopping")
    assert hops is not None
    assert hops[0].get("noMoreThan") == "6"
    assert got.option("urn:example:x") is not None


@pytest.mark.parametrize("via", ["sip", "xmpp"])
def test_other_protocols_reach_the_peers_relay(server: RelayServer, relay: Relay, via: Via) -> None:
    """Issue 6: a SIP or XMPP user writes to a domain that speaks APEX; the object is the content, octet for octet."""

    async def send() -> Response:
        async with server.client(via, ALICE, receive=False) as client:
            return await client.send(thing, FAR)

    thing: MimeObject = text_object(ALICE, FAR, f"by {via} ü")
    assert _run(send()).status is not Status.FAILURE
    got = relay.arrived.get(timeout=20)
    assert got.body == thing.octets
    assert got.header("Content-Type").startswith("message/cpim")
    assert got.originator.partition("/")[0].removesuffix("@a.test") == "alice"


def test_the_peers_relay_sends_over_the_same_session_and_is_told_the_status(
    server: RelayServer, relay: Relay, alice: Application
) -> None:
    """RFC 3340, section 2.1: either end of a relay session may send; b.test is what the route leads to."""
    alice.data("alice@a.test", "carol@b.test", part=GIF)
    relay.arrived.get(timeout=20)
    asked = option("statusRequest", 86, must=True)
    relay.send("a.test", data_payload("carol@b.test", ["alice@a.test"], part=GIF, options=asked))
    got = alice.receive(20)
    assert (got.originator, got.body) == ("carol@b.test", GIF[1])
    back = relay.arrived.get(timeout=20)
    assert back.recipients == ["carol@b.test"]
    assert report(back) == ("apex=report@a.test", "86", "alice@a.test", "250")


def test_a_relay_speaks_for_its_own_domain_only(server: RelayServer, relay: Relay, alice: Application) -> None:
    """P-25, APEX-12: 537 for data of anybody else's, from the relay that was called and from one that calls."""
    alice.data("alice@a.test", "carol@b.test", part=GIF)
    relay.arrived.get(timeout=20)
    for forged in ("bob@a.test", "carol@c.test", "apex=report@c.test"):
        with pytest.raises(Refused, match="537"):
            relay.send("a.test", data_payload(forged, ["alice@a.test"], part=GIF))


def test_a_status_of_the_peers_relay_reaches_who_asked(server: RelayServer, relay: Relay, alice: Application) -> None:
    """RFC 3340, section 5.1, third example: the far relay reports to the originator, whose relay hands it on."""
    alice.data("alice@a.test", "carol@b.test", part=GIF, options=option("statusRequest", 41, must=True))
    asked = relay.arrived.get(timeout=20).option("statusRequest")
    assert asked is not None
    status = (
        f"<statusResponse transID='{asked.get('transID')}'><destination identity='carol@b.test'>"
        "<reply code='550'>unknown endpoint identity</reply></destination></statusResponse>"
    )
    relay.send("a.test", data_payload("apex=report@b.test", ["alice@a.test"], inline=status))
    assert report(alice.receive(20)) == ("apex=report@b.test", "41", "carol@b.test", "550")


def test_what_the_peers_relay_refuses_is_told_to_the_sender(
    server: RelayServer, relay: Relay, alice: Application
) -> None:
    """T7: a permanent refusal of the next relay ends it, with its code, to the SIP or APEX sender alike."""
    relay.refuse = lambda data: Refused("554", "not from you") if b"refuse" in data.body else None
    try:
        refused = (b"Content-Type: text/plain\r\n", b"please refuse")
        alice.data("alice@a.test", "carol@b.test", part=refused, options=option("statusRequest", 43, must=True))
        who, number, about, code = report(alice.receive(20))
    finally:
        relay.refuse = lambda data: None
    assert (who, number, about) == ("apex=report@a.test", "43", "carol@b.test")
    assert code in ("554", "537")


def test_the_peer_calls_as_a_relay(
    relays: tuple[RelayServer, RelayServer, Path], server: RelayServer, alice: Application
) -> None:
    """Bind by the certificate of b.test and SASL EXTERNAL; any other domain is refused."""
    _, theirs, _ = relays
    with theirs.as_relay(server) as calling:
        calling.sign_in("", "", "EXTERNAL")
        with pytest.raises(Refused, match=r"537|534"):
            calling.bind("c.test")
        calling.bind("b.test")
        calling.data("carol@b.test", "alice@a.test", part=GIF)
        assert alice.receive().body == GIF[1]
        with pytest.raises(Refused, match="537"):
            calling.data("bob@a.test", "alice@a.test", part=GIF)
        calling.release()
    with pytest.raises(Broken):
        calling.operate("<terminate transID='1' />")
