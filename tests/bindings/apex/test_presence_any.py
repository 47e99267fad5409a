"""Whatever valid element anybody sends to apex=presence: one answer with its transaction, nothing fails (catalogue's kin, APEX-21)."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from comity.bindings.apex.elements import (
    Capability,
    Part,
    Presence,
    Publish,
    Reply,
    ServiceElement,
    Subscribe,
    Terminate,
    Tuple,
    Watch,
)
from comity.bindings.apex.endpoint import Endpoint
from tests.bindings.apex.presence_world import Application, World
from tests.loop import in_loop

NAMES = st.sampled_from(("alice", "bob", "ALICE", "nobody", "apex=presence", "a b", "ä", "x" * 300, "'", "%41"))
RESOURCES = st.sampled_from(("", "/desk", "/appl=im"))
DOMAINS = st.sampled_from(("a.test", "b.test", "[192.0.2.1]"))
ENDPOINTS = st.builds(
    lambda name, resource, domain: Endpoint.parse(f"{name}{resource}@{domain}"), NAMES, RESOURCES, DOMAINS
)
IDS = st.integers(1, 2**31 - 1)
SECONDS = st.sampled_from((0, 1, 86400, 2**31 - 1))
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda when: when.replace(tzinfo=UTC))
URIS = st.sampled_from(
    (
        "mailto:a@a.test",
        "apex:alice/appl=im@a.test",
        "urn:comity:tuple:0:ID-x",
        "urn:comity:tuple:0?=show=dnd&note=%F0%9F",
        "x:\"'<&>",
    )
)
TUPLES = st.builds(
    Tuple,
    URIS,
    TIMES,
    URIS,
    st.lists(st.builds(Capability, URIS, st.text("a\u20ac<", max_size=9)), max_size=2).map(tuple),
)
STAMPS = st.one_of(st.just(""), TIMES.map(lambda when: when.isoformat()))
PRESENCES = st.builds(Presence, ENDPOINTS, STAMPS, URIS, st.lists(TUPLES, min_size=1, max_size=4).map(tuple))


@st.composite
def publishes(draw: st.DrawFn) -> Publish:
    """Mostly with equal publishers."""
    presence = draw(PRESENCES)
    publisher = draw(st.one_of(st.just(presence.publisher), ENDPOINTS))
    return Publish(publisher, draw(IDS), "2026-01-01T00:00:00Z", presence)


ELEMENTS: st.SearchStrategy[ServiceElement] = st.one_of(
    st.builds(Subscribe, ENDPOINTS, SECONDS, IDS),
    st.builds(Watch, ENDPOINTS, SECONDS, IDS),
    st.builds(Terminate, IDS),
    publishes(),
)
PARTS = st.builds(
    Part,
    st.sampled_from(
        (b"Content-Type: multipart/signed; boundary=b\r\n", b"Content-Type: multipart/signed\r\n", b"X: y\r\n")
    ),
    st.one_of(st.binary(max_size=200), st.sampled_from((b"--b\r\n\r\n--b\r\n\r\n--b--", b"--b--"))),
    st.just("1@a.test"),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(ENDPOINTS, st.one_of(ELEMENTS, PARTS)), min_size=1, max_size=8))
@in_loop
async def test_every_element_is_answered_once(asked: list[tuple[Endpoint, ServiceElement | Part]]) -> None:
    """From anybody, about anybody: an account's names, a service's, ones that no account can have."""
    world = await World().start()
    for originator, element in asked:
        application = Application(world, "alice@a.test", is_foreign=originator.domain != "a.test")
        application.endpoint = originator
        world.relay.applications = {originator: application}
        heard = await application.send(element)
        if isinstance(element, Part):
            assert heard == [], "no transaction was named"
            continue
        number = getattr(element, "trans_id", 0)
        answers = [one for one in heard if isinstance(one, Reply | Publish) and one.trans_id == number]
        assert len(answers) == (0 if originator.is_service else 1), (element, heard)
    world.bench.presence.stop()
