"""Which link calls whom what (``[[route]] as``, ``[[map]]``), and what the service makes of either name (GW-4)."""

from __future__ import annotations

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Reason, Response
from comity.errors import AddressError
from comity.service.interfaces import Accepted, Origin
from comity.service.maps import LinkMaps, Rule
from comity.testing.service import Bench, settle
from tests.loop import in_loop

ALICE, PHONE = Address.parse("im:alice@a.test"), Address.parse("im:1001@pbx.test")
RULES = (
    Rule("sip", "sip.a.test", "sip.a.test", "a.test"),
    Rule("sip", "sip.a.test", "a.test", "xmpp.a.test"),
    Rule("sip", "pbx.test", ALICE, PHONE),
    Rule("xmpp", "pbx.test", "pbx.test", "other.test"),
)


def test_a_link_is_known_by_its_protocol_and_by_what_was_proved() -> None:
    maps = LinkMaps(RULES)
    assert maps.towards("sip", "pbx.test").to_wire(ALICE) == PHONE
    assert maps.towards("xmpp", "pbx.test").to_wire(ALICE) == ALICE
    assert maps.towards("sip", "elsewhere.test").is_plain
    assert maps.of("sip", frozenset({"pbx.test"})).to_core(PHONE) == ALICE
    assert maps.of("xmpp", frozenset({"other.test"})).domain_to_core("other.test") == "pbx.test"
    assert maps.of("sip", frozenset({"nobody.test"})).is_plain
    # One server at the end of both links.
    both = maps.of("sip", frozenset({"pbx.test", "sip.a.test"}))
    assert (both.to_core(PHONE), both.domain_to_core("a.test")) == (ALICE, "sip.a.test")


@pytest.mark.parametrize(
    "rules",
    [
        (Rule("sip", "b.test", "b.test", "c.test"), Rule("sip", "b.test", "d.test", "c.test")),
        (Rule("sip", "b.test", "b.test", "c.test"), Rule("sip", "b.test", "b.test", "d.test")),
        (Rule("sip", "b.test", ALICE, "c.test"),),
    ],
)
def test_what_means_nobody_twice_is_refused_at_the_start(rules: tuple[Rule, ...]) -> None:
    with pytest.raises(AddressError):
        LinkMaps(rules)


@in_loop
async def test_an_object_may_name_people_by_the_links_names_or_by_ours() -> None:
    """The envelope has the core's names; From and To of the object are left as the sender signed them."""

    bench = await Bench().start()
    bob = Address.parse("im:bob@a.test")
    device = await bench.device(bob.uri)

    async def passed(sender: str, recipient: str) -> Accepted | Response:
        raw = f"From: <{sender}>\r\nTo: <{recipient}>\r\n\r\nContent-Type: text/plain\r\n\r\nx"
        thing = MimeObject(b"Content-Type: message/cpim\r\n", raw.encode())
        operation = bench.carrying(thing, "im:carol@sip.a.test", bob.uri)
        wire = (Address.parse("im:carol@b.test"), Address.parse("im:bob@xmpp.a.test"))
        origin = Origin(operation.source, "sip", "192.0.2.1", True, domains=frozenset({"sip.a.test"}), wire=wire)
        answer = await bench.pipeline.submit(operation, origin)
        await settle()
        return answer

    assert isinstance(await passed("im:carol@b.test", "im:bob@xmpp.a.test"), Accepted)
    assert isinstance(await passed("im:carol@sip.a.test", "im:bob@a.test"), Accepted)
    assert len(device.deliveries) == 2
    for sender, recipient in (("im:eve@b.test", bob.uri), ("im:carol@b.test", "im:eve@a.test")):
        refused = await passed(sender, recipient)
        assert isinstance(refused, Response)
        assert refused.reason is Reason.DENIED
