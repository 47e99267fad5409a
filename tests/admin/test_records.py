"""What ``comity trace`` shows of a record: ``admin/records.py`` (SEED-51, SEED-54, GW-8; issue 7, parts 6 and 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from comity.admin.records import EnvelopeRecords
from comity.admin.requests import Step
from comity.cpim.history import HistoryEntry
from comity.cpim.operations import PASSED_ON, Response, success
from comity.service.interfaces import Accepted, Delivery, Origin
from comity.service.routes import Route
from comity.testing.service import Bench, settle
from tests.loop import in_loop

ROUTE = Route("b.test", "sip", "tcp://b.test:5060")


async def traced(bench: Bench, answer: Response, *history: HistoryEntry) -> Sequence[Step]:
    """The steps of one message to a hop that answers so."""

    def says(_: Delivery) -> Response:
        return answer

    bench.hop("b.test", answer=says)
    operation = replace(bench.operation("hi", destination="im:bob@b.test"), history=history)
    origin = Origin(operation.source, "xmpp", "192.0.2.1", True)
    accepted = await bench.pipeline.submit(operation, origin)
    assert isinstance(accepted, Accepted)
    await settle()
    [found] = await bench.store.find(accepted.id)
    return EnvelopeRecords("a.test").steps(found)


@in_loop
async def test_the_whole_way_is_shown_with_the_protection_of_every_link() -> None:
    bench = await Bench(routes=[ROUTE]).start()
    before = HistoryEntry("z.test", "apex", "xmpp", bench.clock.when(), "noted", False, True)
    first, own = await traced(bench, success("", "object"), before)
    assert (first.node, first.in_, first.out, first.in_tls, first.out_tls) == ("z.test", "apex", "xmpp", False, True)
    assert (first.note, first.outcome) == ("noted", "passed on")
    assert (own.node, own.in_, own.out, own.in_tls, own.out_tls) == ("a.test", "xmpp", "sip", True, False)
    assert (own.form, own.outcome, own.asserted_by) == ("object", "delivered (object whole)", "a.test")


@in_loop
async def test_it_is_shown_where_the_object_ended() -> None:
    bench = await Bench(routes=[ROUTE]).start()
    [own] = await traced(bench, success("", "text-of-signed", "gw.example"))
    assert own.outcome == "delivered (text only: protection ends at gw.example)"


@in_loop
async def test_a_text_that_this_node_made_of_an_object_ends_here() -> None:
    bench = await Bench(routes=[ROUTE]).start()
    [own] = await traced(bench, success("", "text"))
    assert own.outcome == "delivered (text only: the object ends at a.test)"


@in_loop
async def test_the_binding_knows_the_link_better_than_the_contact() -> None:
    bench = await Bench(routes=[ROUTE]).start()
    [own] = await traced(bench, replace(success("", PASSED_ON), is_protected=True))
    assert (own.out_tls, own.outcome, own.form) == (True, "passed on", "")
