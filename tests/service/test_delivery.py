"""Order, devices, retry and the end of a message: service/delivery.py (reliability.md sections 5.5 and 5.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import Reason, Response, Status, success
from comity.service.channel import MOST_UNCERTAIN, RETRY_DELAYS
from comity.service.delivery import WINDOW
from comity.service.envelope import operation_of_item
from comity.service.interfaces import Ack, Add, Delivery, Done, Op, Record, Result
from comity.store.memory import MemoryStore
from comity.testing.service import Bench, ended, refuses, settle, takes


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


class TestOrder:
    def test_messages_reach_a_device_in_the_order_of_acceptance(self) -> None:
        """XMPP-4, SIP-7: with a window of one, one at a time."""

        async def story() -> None:
            bench = await Bench().start()
            bob = await bench.device("im:bob@a.test", answer=None)
            sent = [await bench.send(f"{n}") for n in range(5)]
            for n in range(5):
                assert bob.texts == [b"%d" % i for i in range(n + 1)]
                bob.take()
                await settle()
            assert [ended(accepted) for accepted in sent] == [Status.SUCCESS] * 5

        run(story())

    @pytest.mark.parametrize("count", [3, WINDOW + 3, 4 * WINDOW])
    @pytest.mark.parametrize("window", [1, 32])
    def test_stored_messages_come_in_order_and_before_new_ones(self, count: int, window: int) -> None:
        async def story() -> None:
            bench = await Bench().start()
            for n in range(count):
                await bench.send(f"{n}")
            bob = await bench.device("im:bob@a.test", answer=None, window=window)
            for n in range(count, count + 10):
                await bench.send(f"{n}")
            for _ in range(count + 10):
                bob.take()
                await settle()
            assert bob.texts == [b"%d" % n for n in range(count + 10)]
            assert all(delivery.attempt == 1 for delivery in bob.deliveries)
            assert not await bench.store.lanes()

        run(story())

    def test_a_message_read_from_the_lane_before_its_commit_is_told_goes_out_once(self) -> None:
        """The store's writer is another thread: a reader may see a row before the commit's future is heard."""

        async def story() -> None:
            bench = await Bench().start()
            accepted = await bench.send("hello")
            [item] = await bench.store.read("inbox/im:bob@a.test", 10)
            bob = await bench.device("im:bob@a.test", answer=None)
            operation, envelope = operation_of_item(item)
            waiter: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
            bench.pipeline.delivery.accept(
                "inbox/im:bob@a.test", accepted.id, item.seq, operation, envelope, waiter=waiter
            )
            await settle()
            assert bob.texts == [b"hello"]
            bob.take()
            await settle()
            assert waiter.result().status is Status.SUCCESS
            bench.pipeline.delivery.accept("inbox/im:bob@a.test", accepted.id, item.seq, operation, envelope)
            await settle()
            assert bob.texts == [b"hello"]

        run(story())

    def test_the_window_bounds_what_is_in_flight(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            bob = await bench.device("im:bob@a.test", answer=None, window=8)
            for n in range(20):
                await bench.send(f"{n}")
            assert len(bob.held) == 8

        run(story())

    def test_what_was_taken_and_is_not_durably_ended_counts_against_the_window(self) -> None:
        """G2: a kill repeats at most 32 messages a device, however fast the device confirms and the disk does not."""

        class SlowDisk(MemoryStore):
            """Whose Acks become durable when the test says so."""

            held: list[tuple[asyncio.Future[list[Result]], asyncio.Future[list[Result]]]] = []

            def commit(self, ops: Sequence[Op]) -> asyncio.Future[list[Result]]:
                done = super().commit(ops)
                if not isinstance(ops[0], Ack):
                    return done
                later: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
                self.held.append((later, done))
                return later

        async def story() -> None:
            store = SlowDisk()
            bench = await Bench(store).start()
            for n in range(50):
                await bench.send(f"{n}")
            bob = await bench.device("im:bob@a.test", answer=None, window=16)
            carol = await bench.device("im:bob@a.test", "second", answer=takes, window=1)
            while bob.held:
                bob.take()
                await settle()
            assert len(bob.deliveries) == MOST_UNCERTAIN
            for _ in range(5):
                later, done = store.held.pop(0)
                later.set_result(done.result())
            await settle()
            assert len(bob.deliveries) == MOST_UNCERTAIN + 5
            assert len(carol.deliveries) <= MOST_UNCERTAIN + 5
            while bob.held or store.held:
                for later, done in store.held:
                    later.set_result(done.result())
                store.held.clear()
                await settle()
                while bob.held:
                    bob.take()
                await settle()
            assert bob.texts == carol.texts == [b"%d" % n for n in range(50)]

        run(story())

    def test_a_failed_attempt_holds_back_the_later_ones(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            bob = await bench.device("im:bob@a.test", answer=None)
            for n in range(3):
                await bench.send(f"{n}")
            bob.take(refuses(Reason.TIMEOUT)(bob.deliveries[0]))
            await settle()
            assert bob.texts == [b"0"]
            bench.clock.advance(RETRY_DELAYS[0])
            for _ in range(3):
                await settle()
                bob.take()
            await settle()
            assert bob.texts == [b"0", b"0", b"1", b"2"]
            assert bob.deliveries[1].attempt == 2
            assert bob.deliveries[1].id == bob.deliveries[0].id

        run(story())

    def test_a_failure_in_the_middle_of_a_window_keeps_the_order_of_what_follows(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            bob = await bench.device("im:bob@a.test", answer=None, window=3)
            for n in range(6):
                await bench.send(f"{n}")
            for _ in range(3):
                bob.take(refuses(Reason.TIMEOUT)(bob.deliveries[0]))
            await settle()
            bench.clock.advance(RETRY_DELAYS[0])
            await settle()
            assert bob.texts == [b"0", b"1", b"2"] * 2

        run(story())


class TestDevices:
    def test_every_device_gets_its_copy_and_the_first_ends_it(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            slow = await bench.device("im:bob@a.test", "slow", answer=None)
            quick = await bench.device("im:bob@a.test", "quick")
            accepted = await bench.send("hello")
            assert (slow.texts, quick.texts) == ([b"hello"], [b"hello"])
            assert ended(accepted) is Status.SUCCESS
            slow.take(refuses(Reason.TIMEOUT)(slow.deliveries[0]))
            await settle()
            bench.clock.advance(400)
            await settle()
            assert len(slow.deliveries) == 1, "what another device took is not tried again"

        run(story())

    def test_a_resource_that_is_there_gets_it_alone(self) -> None:
        """RFC 6121 section 8.5.3.1; one that is not there: as for the bare address."""

        async def story() -> None:
            bench = await Bench().start()
            desk = await bench.device("im:bob@a.test", "desk")
            sofa = await bench.device("im:bob@a.test", "sofa")
            await bench.send("1", resource="sofa")
            await bench.send("2", resource="gone")
            assert (desk.texts, sofa.texts) == ([b"2"], [b"1", b"2"])

        run(story())

    def test_a_negative_priority_gets_only_what_names_it(self) -> None:
        """XMPP-9."""

        async def story() -> None:
            bench = await Bench().start()
            quiet = await bench.device("im:bob@a.test", "quiet", priority=-1)
            await bench.send("1")
            await bench.send("2", resource="quiet")
            assert quiet.texts == [b"2"]
            loud = await bench.device("im:bob@a.test", "loud")
            assert loud.texts == [b"1"]

        run(story())

    def test_one_device_refusing_does_not_fail_what_another_may_take(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            await bench.device("im:bob@a.test", "phone", answer=refuses(Reason.CONTENT))
            desk = await bench.device("im:bob@a.test", "desk", answer=None)
            accepted = await bench.send("hello")
            assert ended(accepted) is None
            desk.take()
            await settle()
            assert ended(accepted) is Status.SUCCESS

        run(story())

    def test_all_devices_refusing_fails_it_with_the_last_reason(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            for name in ("phone", "desk"):
                await bench.device("im:bob@a.test", name, answer=refuses(Reason.CONTENT))
            accepted = await bench.send("hello")
            assert accepted.outcome.result().reason is Reason.CONTENT
            assert not await bench.store.lanes()

        run(story())

    def test_a_device_that_leaves_gives_its_queue_back(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            bob = await bench.device("im:bob@a.test", answer=None, window=2)
            for n in range(4):
                await bench.send(f"{n}")
            await bench.pipeline.registrar.unregister(Address.parse("im:bob@a.test"), "sip", "phone")
            for _ in range(2):
                bob.take(refuses(Reason.AWAY)(bob.deliveries[0]))
            await settle()
            again = await bench.device("im:bob@a.test", "desk")
            assert again.texts == [b"0", b"1", b"2", b"3"]

        run(story())

    def test_a_device_that_speaks_again_is_tried_at_once(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            bob = await bench.device("im:bob@a.test", answer=None)
            await bench.send("hello")
            bob.take(refuses(Reason.TIMEOUT)(bob.deliveries[0]))
            await settle()
            await bench.pipeline.registrar.register(bob.contact, None)
            await settle()
            assert len(bob.deliveries) == 2

        run(story())

    def test_a_lease_that_ends_removes_the_contact(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            await bench.device("im:bob@a.test", lease=0.0)
            assert bench.pipeline.registrar.count() == 1
            bench.clock.advance(6)
            await settle()
            assert bench.pipeline.registrar.count() == 0

        run(story())


class TestEnds:
    def test_delivery_says_who_vouches_and_shows_our_node(self) -> None:
        """GW-8, SEED-5, SEED-34."""

        async def story() -> None:
            bench = await Bench().start()
            bob = await bench.device("im:bob@a.test", binding="xmpp")
            await bench.send("hello")
            [delivery] = bob.deliveries
            assert delivery.asserted_by == "a.test"
            [hop] = delivery.operation.history
            assert (hop.node, hop.in_protocol, hop.out_protocol) == ("a.test", "sip", "xmpp")

        run(story())

    def test_a_row_that_cannot_be_read_is_parked_and_the_next_goes_out(self) -> None:
        """F-POISON."""

        async def story() -> None:
            bench = await Bench().start()
            bad = Record("poison", "inbox/im:bob@a.test", b"?", b"?", "0" * 64, bench.store.time() + 1000)
            [result] = await bench.store.commit([Add(bad)])
            assert isinstance(result, Done)
            await bench.send("next")
            bob = await bench.device("im:bob@a.test")
            assert bob.texts == [b"next"]
            [found] = await bench.store.find("poison")
            assert found.outcome is not None
            assert b"parked" in found.outcome

        run(story())

    def test_a_deliverer_that_raises_is_a_failed_attempt(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            calls = 0

            def breaks_once(delivery: Delivery) -> Response:
                nonlocal calls
                calls += 1
                if calls == 1:
                    return refuses(Reason.INTERNAL)(delivery)
                return success(delivery.operation.trans_id)

            await bench.device("im:bob@a.test", answer=breaks_once)
            accepted = await bench.send("hello")
            bench.clock.advance(2)
            await settle()
            assert ended(accepted) is Status.SUCCESS

        run(story())

    def test_contacts_that_are_durable_come_back_after_a_restart(self) -> None:
        async def story() -> None:
            first = await Bench().start()
            await first.device("im:bob@a.test", is_durable=True, lease=100, answer=None)
            await first.send("held by the phone")
            await first.pipeline.stop()
            second = Bench(store=first.store)
            second.binding.devices = first.binding.devices
            await second.start()
            await settle()
            bob = second.binding.devices["im:bob@a.test", "phone"]
            assert bob.texts == [b"held by the phone"] * 2
            assert bob.deliveries[0].id == bob.deliveries[1].id

        run(story())
