"""What a sender is told, and when (RFC 3340 sections 5.1 and 6.2, RFC 3342; ``bindings/apex/report.py`` and its users)."""

from __future__ import annotations

import asyncio

import pytest

from comity.bindings.apex.elements import DataHopping, DataTiming, Error, Inline, Ok, Option, Part
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.options import DATA_HOPPING, DATA_TIMING, HOLD, STATUS_REQUEST
from comity.bindings.apex.reasons import CODES, REASONS, reason_for_code
from comity.bindings.apex.report import Wanted
from comity.bindings.apex.wire import read_option_content, write_option_content
from comity.bindings.sip.mapping import STATUS_CODES
from comity.cpim.address import Address
from comity.cpim.message import CpimMessage
from comity.cpim.operations import Fate, Reason, Report
from comity.errors import StoreError
from comity.service.interfaces import Contact
from comity.service.policy import Limits
from comity.service.routes import Route
from comity.testing.service import Device, refuses
from tests.bindings.apex.world import World
from tests.loop import in_loop

STATUS = Option(STATUS_REQUEST, must_understand=True, trans_id=86)


def timing(**values: int | bool) -> Option:
    content = write_option_content(DataTiming(**values))  # type: ignore[arg-type]  # the test names its fields
    return Option(DATA_TIMING, target_hop="all", must_understand=True, trans_id=87, content=content)


def code(answer: Ok | Error | None) -> int:
    return answer.code if isinstance(answer, Error) else 250 if answer == Ok() else 0


def _disk_is_full(ops: object) -> asyncio.Future[object]:
    failed: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    failed.set_exception(StoreError("no space left on the device"))
    return failed


async def phone(world: World, uri: str, reason: Reason | None = None) -> Device:
    """A device that is not on APEX; it refuses if there is a reason."""
    address = Address.parse(uri)
    contact = Contact("phone", address, "sip", "phone", is_protected=True)
    device = Device(contact, refuses(reason)) if reason else Device(contact)
    world.phones.devices[address.key, "phone"] = device
    await world.pipeline.registrar.register(contact, None)
    return device


@in_loop
async def test_250_when_the_application_took_it() -> None:
    """The first example of RFC 3340 section 5.1, APEX-14."""
    world = await World().start()
    alice, bob = await world.online("alice@a.test"), await world.online("bob@a.test")
    assert code(await alice.send("alice@a.test", "bob@a.test", options=[STATUS])) == 250
    assert alice.reports == [(86, "bob@a.test", 250)]
    (report,) = alice.data
    assert (str(report.originator.identity), str(report.recipients[0].identity)) == (
        "apex=report@a.test",
        "alice@a.test",
    )
    assert report.options == ()
    assert bob.data[0].options[0] == STATUS  # a final relay takes no option away


@in_loop
async def test_nothing_yet_is_no_report() -> None:
    """T6: indeterminant is ``ok`` and no statusResponse yet."""
    world = await World().start()
    alice = await world.online("alice@a.test")
    assert code(await alice.send("alice@a.test", "bob@a.test", options=[STATUS, Option(HOLD)])) == 250
    assert alice.reports == []
    await world.online("bob@a.test")
    assert alice.reports == [(86, "bob@a.test", 250)]


@in_loop
async def test_550_for_nobody() -> None:
    """The second example of RFC 3340 section 5.1; without the option it is the answer itself (T1)."""
    world = await World().start()
    alice = await world.online("alice@a.test")
    assert code(await alice.send("alice@a.test", "nobody@a.test", options=[STATUS])) == 250
    assert alice.reports == [(86, "nobody@a.test", 550)]
    assert code(await alice.send("alice@a.test", "nobody@a.test")) == 550
    assert code(await alice.send("alice@a.test", "bob@nowhere.test")) == 553


@in_loop
async def test_each_recipient_is_told_of_apart() -> None:
    world = await World().start()
    alice = await world.online("alice@a.test")
    await world.online("bob/appl=wb@a.test")
    to = ("bob/appl=wb@a.test", "nobody@a.test", "carol@a.test")
    assert code(await alice.send("alice@a.test", *to, options=[STATUS])) == 250
    assert sorted(alice.reports) == [(86, "bob/appl=wb@a.test", 250), (86, "nobody@a.test", 550)]


@in_loop
async def test_one_that_can_be_taken_makes_the_whole_ok() -> None:
    world = await World().start()
    alice, bob = await world.online("alice@a.test"), await world.online("bob@a.test")
    assert code(await alice.send("alice@a.test", "nobody@a.test", "bob@a.test")) == 250
    assert len(bob.data) == 1
    assert alice.data == []


@in_loop
async def test_what_cannot_be_stored_now_is_450_and_a_repeat_brings_nothing_twice() -> None:
    """P-34, F-04: never ``ok`` first."""
    world = await World().start()
    alice, bob = await world.online("alice@a.test"), await world.online("bob@a.test")
    part = Part(b"Content-Type: text/plain\r\n", b"hello", "1@x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.store, "commit", _disk_is_full)
        assert code(await alice.send("alice@a.test", "bob@a.test", content=part, options=[STATUS])) == 450
    for _ in range(2):
        assert code(await alice.send("alice@a.test", "bob@a.test", content=part, options=[STATUS])) == 250
    assert len(bob.data) == 1


@in_loop
async def test_a_device_of_another_protocol_counts_as_well() -> None:
    world = await World().start()
    alice = await world.online("alice@a.test")
    device = await phone(world, "im:bob@a.test")
    assert code(await alice.send("alice@a.test", "bob@a.test", options=[STATUS])) == 250
    assert alice.reports == []
    device.take()
    await world.settle()
    assert alice.reports == [(86, "bob@a.test", 250)]


@in_loop
async def test_a_refusal_elsewhere_comes_back_as_its_code() -> None:
    world = await World().start()
    alice = await world.online("alice@a.test")
    await phone(world, "im:bob@a.test", Reason.DENIED)
    assert code(await alice.send("alice@a.test", "bob@a.test", options=[STATUS])) == 250
    await world.settle()
    assert alice.reports == [(86, "bob@a.test", 537)]


@in_loop
async def test_a_failure_nobody_asked_about_comes_as_a_notification() -> None:
    """GW-12: the sender hears of it (RFC 5438), not as a statusResponse to a transID that was never given."""
    world = await World().start()
    alice = await world.online("alice@a.test")
    await phone(world, "im:bob@a.test", Reason.DENIED)
    assert code(await alice.send("alice@a.test", "bob@a.test")) == 250
    await world.settle()
    assert alice.reports == []
    (content,) = alice.contents
    assert isinstance(content, Part)
    assert b"imdn+xml" in CpimMessage.parse(content.octets).content_header_block


@in_loop
async def test_a_final_hop_report_carries_its_own_time() -> None:
    """RFC 3342 section 2.1.1."""
    world = await World().start()
    alice = await world.online("alice@a.test")
    await world.online("bob@a.test")
    asked = timing(no_later_than=10_000, return_trip=20_000)
    assert code(await alice.send("alice@a.test", "bob@a.test", options=[asked])) == 250
    assert alice.reports == [(87, "bob@a.test", 250)]
    (option,) = alice.data[0].options
    assert (option.internal, option.target_hop, option.must_understand) == (DATA_TIMING, "all", True)
    assert option.trans_id not in (0, 87)
    assert read_option_content(option, "dataTiming") == DataTiming(no_later_than=20_000)


@in_loop
async def test_late_is_550_and_not_delivered_any_more() -> None:
    """RFC 3342 section 2.1.2, APEX-16."""
    world = await World().start()
    alice = await world.online("alice@a.test")
    asked = timing(no_later_than=6_000, report_errors=True)
    assert code(await alice.send("alice@a.test", "bob@a.test", options=[asked])) == 250
    await world.pass_time(30.0)
    assert alice.reports == [(87, "bob@a.test", 550)]
    bob = await world.online("bob@a.test")
    assert bob.data == []


@in_loop
async def test_what_is_late_by_less_than_the_servers_look_is_not_delivered_either() -> None:
    world = await World().start()
    alice = await world.online("alice@a.test")
    asked = timing(no_later_than=1_000, report_errors=True)
    assert code(await alice.send("alice@a.test", "bob@a.test", options=[asked])) == 250
    await world.pass_time(1.5)
    bob = await world.online("bob@a.test")
    assert bob.data == []
    await world.pass_time(30.0)
    assert alice.reports == [(87, "bob@a.test", 550)]


@in_loop
async def test_delayed_is_350_and_delivered_all_the_same() -> None:
    """RFC 3342 section 2.2.1."""
    world = await World().start()
    alice = await world.online("alice@a.test")
    assert code(await alice.send("alice@a.test", "bob@a.test", options=[timing(report_after=60_000), STATUS])) == 250
    await world.pass_time(61.0)
    assert alice.reports == [(87, "bob@a.test", 350)]
    await world.online("bob@a.test")
    assert alice.reports == [(87, "bob@a.test", 350), (86, "bob@a.test", 250)]


@in_loop
async def test_no_more_hops_is_550() -> None:
    """RFC 3342 section 4, P-29: with 1 left nothing goes to another relay; here it may be delivered."""
    world = await World(routes=[Route("b.test", "sip")]).start()
    alice, bob = await world.online("alice@a.test"), await world.online("bob@a.test")
    content = write_option_content(DataHopping(1, report_errors=True))
    asked = Option(DATA_HOPPING, target_hop="all", must_understand=True, trans_id=88, content=content)
    assert code(await alice.send("alice@a.test", "carol@b.test", options=[asked])) == 250
    assert alice.reports == [(88, "carol@b.test", 550)]
    assert code(await alice.send("alice@a.test", "bob@a.test", options=[asked])) == 250
    assert len(bob.data) == 1


@in_loop
async def test_reports_outlive_the_process() -> None:
    world = await World(limits=Limits(lifetime=3600.0)).start()
    alice = await world.online("alice@a.test")
    assert code(await alice.send("alice@a.test", "bob@a.test", options=[STATUS])) == 250
    later = await World(former=world).start()
    await later.online("bob@a.test")
    alice = await later.online("alice@a.test")
    await later.settle()
    assert alice.reports == [(86, "bob@a.test", 250)]


@in_loop
async def test_nothing_is_reported_about_a_report() -> None:
    """P-31: data for apex=report is refused, whatever it asks for."""
    world = await World().start()
    alice = await world.online("alice@a.test")
    said = Inline(
        b"<statusResponse transID='86'><destination identity='b@a.test'><reply code='250'/></destination></statusResponse>"
    )
    answer = await alice.send("alice@a.test", "apex=report@a.test", content=said)
    assert code(answer) in (501, 504, 550)
    await alice.send("alice@a.test", "apex=report@a.test", content=said, options=[STATUS])
    before = len(alice.data)
    await world.pass_time(60.0)
    assert len(alice.data) == before <= 1


@in_loop
async def test_a_person_who_sends_a_report_is_told_nothing_about_it() -> None:
    """P-31: "A statusRequest option MUST NOT be present in any data operation containing a statusResponse"."""
    world = await World().start()
    alice, bob = await world.online("alice@a.test"), await world.online("bob@a.test")
    said = Inline(b" <statusResponse transID='86'/>")
    assert code(await alice.send("alice@a.test", "bob@a.test", content=said, options=[STATUS])) == 250
    assert (len(bob.data), alice.reports) == (1, [])


class TestWords:
    """T1 and T7, code by code; what stands in ``Context.native_id``."""

    def test_every_reason_has_its_code(self) -> None:
        """T1, T8: what stands in the APEX column; a time, a signature or a key that is refused is a policy of the recipient."""
        column = {
            450: {Reason.TIMEOUT, Reason.AWAY, Reason.QUOTA},
            421: {Reason.OVERLOAD, Reason.UNSERVED},
            451: {Reason.INTERNAL},
            501: {Reason.SYNTAX},
            504: {Reason.CONTENT},
            537: {Reason.DENIED},
            550: {Reason.NO_SUCH_USER, Reason.HOPS, Reason.LOOP, Reason.EXPIRED, Reason.NO_PUBLICATION},
            553: {Reason.NO_ROUTE},
            554: {Reason.SIZE, Reason.TIMESTAMP, Reason.SIGNATURE, Reason.DECRYPTION, Reason.PROTECTION},
            555: {Reason.SUBSCRIPTION_EXISTS},
        }
        assert {reason: code for code, reasons in column.items() for reason in reasons} == CODES

    def test_what_a_code_becomes_for_who_wrote_by_sip(self) -> None:
        """T7; where the core has one reason for two codes of SIP, that of T1: 401 is 403, 501 is 415."""
        column = {
            400: {500, 501, 503},
            403: {530, 534, 535, 454, 537, 538, 554},
            404: {550, 551, 553},
            408: {350},
            415: {504},
            480: {421, 450, 556},
            500: {451},
            412: {555},
        }
        assert {number: code for code, numbers in column.items() for number in numbers} == {
            number: STATUS_CODES[reason][0] for number, reason in REASONS.items()
        }

    @pytest.mark.parametrize(
        ("number", "reason"), [(499, Reason.AWAY), (599, Reason.DENIED), (399, Reason.TIMEOUT), (299, Reason.DENIED)]
    )
    def test_the_first_digit_decides_for_others(self, number: int, reason: Reason) -> None:
        """X37."""
        assert number not in REASONS
        assert reason_for_code(number) is reason

    def test_what_is_wanted_comes_back_as_it_was_written(self) -> None:
        wanted = Wanted(
            Endpoint.parse("a b/c d@a.test"), 1, 2, 3, reports_lateness=True, reports_delay=False, hopping=4
        )
        assert Wanted.read(wanted.write()) == wanted

    @pytest.mark.parametrize("text", ["", "call-id@host", "1.2.3 x", "1.2.3.0.0.x a@a.test", "1.2.3.0.0.4 nobody"])
    def test_another_protocols_identifier_is_none_of_ours(self, text: str) -> None:
        assert Wanted.read(text) is None

    def test_one_number_for_two_options_is_answered_once(self) -> None:
        wanted = Wanted(Endpoint.parse("b@a.test"), status=5, timing=5, reports_lateness=True)
        report = Report(Reason.EXPIRED, "", Address.parse("im:b@a.test"), fate=Fate.FAILED)
        assert wanted.answers(report) == {5: 550}
