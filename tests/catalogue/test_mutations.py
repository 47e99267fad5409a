"""Changed streams and objects on a running server: "inputs of the same kinds that are not listed are tried too".

Without sockets the same strategies run by the thousand in ``tests/properties/test_two_readers.py``.
"""

from __future__ import annotations

import email.parser
import itertools
import os
import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from lxml import etree

from tests.catalogue.carriers import NO_RATES, Carrier, carriers
from tests.catalogue.fleet import Answer, play, read_answer
from tests.catalogue.harness import Inbox, Target
from tests.catalogue.mutations import bound_streams, cuts, in_pieces, negotiating_streams, objects
from tests.catalogue.raw import RawXmpp, Stage

EXAMPLES = int(os.environ.get("COMITY_CATALOGUE_EXAMPLES", "1000")) // 2
"""Of each kind."""
FAST = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ALL_STAGES: tuple[Stage, ...] = ("fresh", "tls", "authenticated", "bound")
STREAM_CONDITIONS = {
    *(
        "resource-constraint",
        "bad-format",
        "bad-namespace-prefix",
        "conflict",
        "host-unknown",
        "invalid-from",
        "invalid-namespace",
    ),
    *("invalid-xml", "not-authorized", "not-well-formed", "policy-violation", "restricted-xml", "undefined-condition"),
    *("unsupported-encoding", "unsupported-feature", "unsupported-stanza-type", "unsupported-version"),
}
STANZA_CONDITIONS = {
    *("bad-request", "feature-not-implemented", "forbidden", "item-not-found", "jid-malformed", "not-acceptable"),
    *("not-allowed", "policy-violation", "remote-server-not-found", "service-unavailable", "unexpected-request"),
    *("conflict", "recipient-unavailable", "gone"),
}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server without the rate of messages one user has: it is not what is tried here."""
    limits = NO_RATES + "sm_resume = 1\n"
    people = ("carol", *(f"alice{number}" for number in range(8)))
    target = Target(tmp_path_factory.mktemp("target"), limits, people)
    yield target
    target.check_canary()
    target.close()


@pytest.fixture(scope="module")
def ways(target: Target) -> Iterator[list[Carrier]]:
    """Signed-in connections."""
    with carriers(target) as found:
        yield found


PEOPLE = itertools.cycle(f"alice{number}" for number in range(8))
"""Who attacks: a stream that may be resumed still counts among its account's devices."""


def goodbye(peer: RawXmpp) -> Answer:
    """End our side, and hear the server out."""
    peer.half_close()
    heard = peer.until_closed()
    return read_answer(heard if heard.endswith(b"</stream:stream>") else heard + b"</stream:stream>")


@FAST
@given(octets=bound_streams | negotiating_streams, sizes=cuts(), stage=st.sampled_from(ALL_STAGES))
def test_a_changed_stream_is_answered_and_harms_nobody(
    target: Target, bob: Inbox, octets: bytes, sizes: list[int], stage: Stage
) -> None:
    """Defined errors only, nobody hears from anybody but alice (I10), the server and the canary go on."""
    user = next(PEOPLE)
    with RawXmpp(target, stage, user) as peer:
        if stage != "bound":
            peer.open()
        if b"<starttls" in octets and stage == "fresh":
            peer.send(octets)  # in one segment: what follows must not be read as if it had come under TLS
            heard = peer.heard + (peer.until_closed() if not peer.hear() else b"")
            assert b"<success" not in heard
            return
        play([peer], [in_pieces(octets, sizes)])
        answer = goodbye(peer)
    assert answer.condition in {"", *STREAM_CONDITIONS}
    for element in answer.elements:
        for error in element.iterfind("{jabber:client}error"):
            assert etree.QName(error[0]).localname in STANZA_CONDITIONS, answer.octets
    assert answer.condition != "resource-constraint" or b"<enable" in octets
    assert all(re.fullmatch(r"im:alice\d?@a\.test", sender) for sender in bob.senders)


@FAST
@given(obj=objects)
def test_a_changed_object_is_refused_or_arrives_as_it_is(
    target: Target, ways: list[Carrier], bob: Inbox, obj: bytes
) -> None:
    """Every way in gives the same verdict; what arrives is alice's for an independent reader too."""
    assume(len(obj) < 100_000)  # above, the edges' own limits answer: C-27
    verdicts = set()
    for way in ways:
        if way.can_hold(obj):
            before = bob.count(obj)
            verdict = way.submit(obj)
            verdicts.add("syntax" if verdict == "timestamp" else verdict)
            if verdict == "accepted" and not before:
                bob.expect_octets(obj)
    assert len(verdicts) <= 1, verdicts
    if verdicts == {"accepted"}:
        fields = email.parser.BytesHeaderParser().parsebytes(obj)
        senders = {m[1] if (m := re.search(r"<([^>]*)>", str(v))) else str(v) for v in fields.get_all("From", [])}
        assert senders <= {"im:alice@a.test"}


def test_nothing_is_left_of_all_that(target: Target) -> None:
    """After everything above: the checks of a row, with all it may have left."""
    with target.row("mutations"), RawXmpp(target, "bound") as peer:
        peer.send(b"<a></b>")
        assert read_answer(peer.until_closed()).condition == "not-well-formed"
