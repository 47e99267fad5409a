"""Names at a link's edge are a bijection, whatever is mapped (GW-4, G-13, ADDR-23)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.address import Address
from comity.cpim.names import PLAIN, Names
from comity.cpim.native import wrap
from comity.cpim.operations import Context, MessageOperation, Reason, Report
from comity.errors import AddressError

DOMAINS = ("a.test", "b.test", "sip.a.test", "pbx.test", "xn--bcher-kva.test")
LOCALS = st.one_of(
    st.sampled_from(["alice", "1001", "user%b.test", "tschüss", "o'malley"]), st.text(min_size=1, max_size=4)
)


@st.composite
def address(draw: st.DrawFn) -> Address:
    try:
        return Address.im(draw(LOCALS), draw(st.sampled_from(DOMAINS)))
    except AddressError:
        return Address("im", "alice", draw(st.sampled_from(DOMAINS)))


@st.composite
def names(draw: st.DrawFn) -> Names:
    cores = draw(st.lists(st.sampled_from(DOMAINS), unique=True, max_size=4))
    wires = draw(st.permutations(DOMAINS))
    people = draw(st.lists(address(), unique=True, max_size=4))
    called = draw(st.lists(address(), unique=True, min_size=4, max_size=4))
    return Names(dict(zip(cores, wires, strict=False)), dict(zip(people, called, strict=False)))


@given(names(), address(), st.sampled_from(["im", "pres"]))
def test_whatever_is_mapped_both_directions_are_each_others_inverse(link: Names, who: Address, scheme: str) -> None:
    who = who.with_scheme(scheme)
    wire, core = link.to_wire(who), link.to_core(who)
    if wire is not None:
        assert link.to_core(wire) == who
        assert wire.scheme == scheme
    if core is not None:
        assert link.to_wire(core) == who


@given(names(), address(), address())
def test_no_two_have_one_name(link: Names, one: Address, other: Address) -> None:
    if one != other:
        first, second = link.to_wire(one), link.to_wire(other)
        assert first is None or first != second


@given(names(), st.sampled_from(DOMAINS))
def test_domains_alone_are_turned_likewise(link: Names, domain: str) -> None:
    wire = link.domain_to_wire(domain)
    assert wire is None or link.domain_to_core(wire) == domain


def test_a_name_that_was_given_away_means_nobody() -> None:
    """G-13: no address leads through another domain back to itself."""
    link = Names({"sip.a.test": "a.test"}, {Address.parse("im:alice@a.test"): Address.parse("im:1001@pbx.test")})
    assert link.to_wire(Address.parse("im:bob@sip.a.test")) == Address.parse("im:bob@a.test")
    assert link.to_core(Address.parse("im:bob@a.test")) == Address.parse("im:bob@sip.a.test")
    # a.test's own people have no name there, but for the one who was given one; and sip.a.test is no name there.
    assert link.to_wire(Address.parse("im:bob@a.test")) is None
    assert link.to_core(Address.parse("im:bob@sip.a.test")) is None
    assert link.to_core(Address.parse("im:1001@pbx.test")) == Address.parse("im:alice@a.test")
    # A domain written into a local part is a local part.
    percent = Address.im("bob%sip.a.test", "pbx.test")
    assert link.to_core(percent) == percent
    assert link.proved(["a.test", "x.test"]) == {"sip.a.test", "x.test"}


def test_two_cannot_be_given_one_name() -> None:
    with pytest.raises(AddressError, match="two would have this name"):
        Names({"a.test": "c.test", "b.test": "c.test"})


def test_the_envelope_is_turned_and_the_object_is_not() -> None:
    """GW-4: To and From of an object stay what the sender wrote; what a report is about goes by the link's name."""
    alice, bob = Address.parse("im:alice@a.test"), Address.parse("im:bob@sip.a.test")
    thing = wrap(alice, bob, b"x", "text/plain", when=datetime(2026, 1, 1, tzinfo=UTC), message_id="m1")
    context = Context(report=Report(Reason.NO_SUCH_USER, "", bob, "n1"))
    operation = MessageOperation(alice, bob, "t", thing, context=context)
    link = Names({"sip.a.test": "pbx.test"})
    out = link.operation_to_wire(operation)
    assert out is not None
    assert out.object is thing
    assert (out.source, out.destination.uri) == (alice, "im:bob@pbx.test")
    assert out.context.report is not None
    assert out.context.report.recipient.uri == "im:bob@pbx.test"
    assert link.operation_to_core(out) == operation
    assert link.operation_to_wire(out) is None
    assert PLAIN.operation_to_wire(operation) is operation
