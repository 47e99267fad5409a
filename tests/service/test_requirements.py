"""What a message requires of every hop, in the service: admission, the store, the way out (T11, SEC-29, SEC-30)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace

import msgspec
import pytest

from comity.cpim.address import Address
from comity.cpim.imdn import is_report
from comity.cpim.operations import MessageOperation, Reason, Requirement, Response, Status, failure
from comity.errors import StoreError
from comity.secure import sign
from comity.service.envelope import operation_of, unpack
from comity.service.interfaces import Accepted, Add, Contact, Origin, Put
from comity.service.messaging import envelope_of, record_of
from comity.service.registrar import ContactRegistrar, _Stored
from comity.store.memory import MemoryStore
from comity.testing.clock import FakeClock
from comity.testing.service import Bench, ended, settle
from tests.secure.kit import identity

TLS, SIGNED, ENCRYPTED = Requirement.TLS, Requirement.SIGNED, Requirement.ENCRYPTED
ALICE = Address.parse("im:alice@a.test")


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


def requiring(operation: MessageOperation, *requirements: Requirement) -> MessageOperation:
    return replace(operation, requirements=frozenset(requirements))


async def submit(bench: Bench, operation: MessageOperation, *, is_protected: bool = True) -> Accepted | Response:
    answer = await bench.pipeline.submit(operation, Origin(operation.source, "sip", "127.0.0.1", is_protected))
    await settle()
    return answer


@pytest.mark.parametrize("requirement", [SIGNED, ENCRYPTED])
def test_an_object_that_is_not_what_it_must_be_is_refused_and_not_stored(requirement: Requirement) -> None:
    async def story() -> None:
        bench = await Bench().start()
        answer = await submit(bench, requiring(bench.operation("x"), requirement))
        assert isinstance(answer, Response)
        assert answer.reason is Reason.PROTECTION
        assert answer.text == f"The message must be {requirement.value} and is not."
        assert not await bench.store.lanes()

    run(story())


def test_tls_is_required_of_the_way_it_came_too() -> None:
    async def story() -> None:
        bench = await Bench().start()
        answer = await submit(bench, requiring(bench.operation("x"), TLS), is_protected=False)
        assert isinstance(answer, Response)
        assert answer.reason is Reason.PROTECTION
        assert not await bench.store.lanes()

    run(story())


def test_of_two_devices_only_the_one_under_tls_gets_it() -> None:
    async def story() -> None:
        bench = await Bench().start()
        bare = await bench.device("im:bob@a.test", "bare", is_protected=False)
        safe = await bench.device("im:bob@a.test", "safe")
        answer = await submit(bench, requiring(bench.operation("x"), TLS))
        assert isinstance(answer, Accepted)
        assert ended(answer) is Status.SUCCESS
        assert (safe.texts, bare.texts) == ([b"x"], [])
        assert safe.deliveries[0].operation.requirements == {TLS}

    run(story())


def test_with_no_device_under_tls_it_fails_natively_and_the_next_message_passes() -> None:
    async def story() -> None:
        bench = await Bench().start()
        bare = await bench.device("im:bob@a.test", "bare", is_protected=False)
        answer = await submit(bench, requiring(bench.operation("x"), TLS))
        assert isinstance(answer, Accepted)
        assert answer.outcome.result().reason is Reason.PROTECTION
        await bench.send("y")
        assert bare.texts == [b"y"]

    run(story())


def test_one_that_waited_is_reported_when_only_an_open_link_comes() -> None:
    """The requirement is kept in the store; the sender, gone meanwhile, gets a report with the sentence."""

    async def story() -> None:
        bench = await Bench().start()
        answer = await submit(bench, requiring(bench.operation("x"), TLS))
        assert isinstance(answer, Accepted)
        bare = await bench.device("im:bob@a.test", "bare", is_protected=False)
        assert not bare.deliveries
        sender = await bench.device("im:alice@a.test", "phone", is_protected=False)
        (told,) = sender.deliveries
        assert is_report(told.operation.object)
        report = told.operation.context.report
        assert report is not None
        assert report.reason is Reason.PROTECTION
        assert "not connected under TLS" in report.text

    run(story())


def test_a_repeat_with_a_requirement_is_not_answered_like_the_first() -> None:
    """A "yes" to it would say that a requirement was kept which nobody knew of."""

    async def story() -> None:
        bench = await Bench().start()
        await bench.device("im:bob@a.test", "bare", is_protected=False)
        thing = sign(bench.operation("x").object, identity(), when=bench.clock.when())
        first = await submit(bench, bench.carrying(thing))
        assert isinstance(first, Accepted)
        assert ended(first) is Status.SUCCESS
        again = await submit(bench, requiring(bench.carrying(thing), TLS))
        assert isinstance(again, Accepted)
        assert not again.is_repeat
        assert again.outcome.result().reason is Reason.PROTECTION

    run(story())


def test_a_device_that_cannot_keep_it_fails_it() -> None:
    async def story() -> None:
        bench = await Bench().start()
        await bench.device(
            "im:bob@a.test", answer=lambda delivery: failure(delivery.operation.trans_id, Reason.PROTECTION, "no")
        )
        thing = sign(bench.operation("x").object, identity(), when=bench.clock.when())
        answer = await submit(bench, requiring(bench.carrying(thing), SIGNED))
        assert isinstance(answer, Accepted)
        assert answer.outcome.result().reason is Reason.PROTECTION

    run(story())


class TestStored:
    def envelope(self, bench: Bench, *requirements: Requirement) -> tuple[MessageOperation, bytes]:
        operation = requiring(bench.operation("x"), *requirements)
        return operation, envelope_of(operation, Origin(ALICE, "sip", "", True), None, "")

    @pytest.mark.parametrize("requirements", [(), (TLS,), (TLS, SIGNED, ENCRYPTED)])
    def test_requirements_come_back(self, requirements: tuple[Requirement, ...]) -> None:
        operation, packed = self.envelope(Bench(), *requirements)
        record = record_of(operation, packed, 1.0, ())
        assert operation_of(record, unpack(packed)).requirements == set(requirements)

    def test_an_envelope_of_before_there_were_any_is_read(self) -> None:
        operation, packed = self.envelope(Bench())
        older = msgspec.msgpack.encode(msgspec.msgpack.decode(packed)[:13])
        assert len(msgspec.msgpack.decode(packed)) > 13
        assert operation_of(record_of(operation, older, 1.0, ()), unpack(older)).requirements == frozenset()

    def test_a_requirement_of_a_later_version_is_a_row_that_cannot_be_read(self) -> None:
        """It is parked and its sender told, never sent on without what nobody here knows how to keep (F-POISON)."""

        async def story() -> None:
            bench = await Bench().start()
            operation, packed = self.envelope(bench, TLS)
            fields = msgspec.msgpack.decode(packed)
            fields[13] = ["quantum"]
            record = record_of(operation, msgspec.msgpack.encode(fields), bench.store.time() + 1000, ())
            with pytest.raises(StoreError, match="quantum"):
                operation_of(record, unpack(record.envelope))
            await bench.store.commit([Add(record)])
            await bench.send("next")
            bob = await bench.device("im:bob@a.test")
            assert bob.texts == [b"next"]
            [found] = await bench.store.find(record.id)
            assert found.outcome is not None
            assert b"parked" in found.outcome
            alice = await bench.device("im:alice@a.test")
            assert [is_report(told.operation.object) for told in alice.deliveries] == [True]
            assert not await bench.store.lanes(), "nothing stays behind"

        run(story())

    def test_a_contact_comes_back_with_its_link_and_an_older_one_without(self) -> None:
        async def story() -> None:
            store, clock = MemoryStore(), FakeClock()
            registrar = ContactRegistrar(store, clock)
            safe = Contact("safe", ALICE, "sip", is_durable=True, is_protected=True)
            await registrar.register(safe, 600.0)
            await registrar.register(replace(safe, id="old"), 600.0)
            ((key, entry),) = await store.scan("contact", f"{ALICE.key}/sip/old")
            row = msgspec.msgpack.decode(entry.value)
            assert len(row) == len(_Stored.__struct_fields__)
            await store.commit([Put("contact", key, msgspec.msgpack.encode(row[:-1]))])
            loaded = ContactRegistrar(store, clock)
            await loaded.load()
            assert {c.id: c.is_protected for c in loaded.contacts(ALICE)} == {"safe": True, "old": False}

        run(story())
