"""Admission: one turn's share of new work, the line of those who wait, and datagrams that come too late (LG-12, L-06)."""

from __future__ import annotations

import asyncio

from comity.net.intake import BEHIND, LOOK, PATIENCE, REFUSALS, TURN, Intake, Patience
from comity.testing.clock import FakeClock
from tests.net.kit import run_async, serving
from tests.net.test_udp import open_client


class Waiting:
    """A reader whose turn costs some time."""

    def __init__(self, name: str, turns: list[str], clock: FakeClock, cost: float) -> None:
        self.name, self.turns, self.clock, self.cost = name, turns, clock, cost

    def take_turn(self) -> None:
        self.turns.append(self.name)
        self.clock.advance(self.cost)


async def next_turn() -> None:
    await asyncio.sleep(0)


@run_async
async def test_a_turn_takes_no_more_than_its_time_and_the_rest_follow_in_order() -> None:
    clock, turns = FakeClock(), list[str]()
    intake = Intake(clock)
    readers = [Waiting(name, turns, clock, TURN * 0.6) for name in "abcdef"]
    for reader in readers:
        if intake.admits(reader):
            reader.take_turn()
    assert turns == ["a", "b"]
    await next_turn()
    assert turns == ["a", "b", "c", "d"]
    assert not intake.admits(readers[0]), "who comes later stands behind those who wait"
    await next_turn()
    await next_turn()
    assert turns == ["a", "b", "c", "d", "e", "f", "a"]
    assert intake.admits(readers[0])


@run_async
async def test_nothing_is_read_while_the_service_is_behind() -> None:
    clock, turns = FakeClock(), list[str]()
    lag = BEHIND * 2
    intake = Intake(clock, lambda: lag)
    assert intake.is_behind
    for name in "ab":
        assert not intake.admits(Waiting(name, turns, clock, 0.0))
    for _ in range(5):
        clock.advance(LOOK)
        await next_turn()
    assert turns == []
    assert clock.pending == 1, "one look at a time"
    lag = 0.0
    clock.advance(LOOK)
    assert turns == ["a", "b"]


def test_datagrams_may_be_refused_once_the_socket_was_not_empty_for_long() -> None:
    async def check() -> None:
        patience = Patience(Intake(FakeClock()))
        patience.left(1.0)
        assert not patience.is_over(1.0 + PATIENCE / 2)
        patience.left(1.0 + PATIENCE / 2)
        late = 1.0 + PATIENCE * 1.01
        assert patience.is_over(late)
        patience.emptied()
        assert not patience.is_over(late)

    asyncio.run(check())


def test_one_in_a_few_late_datagrams_is_taken_all_the_same() -> None:
    """If refusing took all the time there is, nothing would ever get through."""

    async def check() -> None:
        patience = Patience(Intake(FakeClock()))
        patience.left(1.0)
        answers = [patience.is_over(2.0) for _ in range(3 * (REFUSALS + 1))]
        assert answers == ([True] * REFUSALS + [False]) * 3

    asyncio.run(check())


@run_async
async def test_a_session_refuses_datagrams_while_the_service_is_behind() -> None:
    lag = BEHIND * 2
    async with serving("udp", lag=lambda: lag) as (_, binding, [address]):
        transport, client = await open_client(address)
        for data in (b"1", b"urgent", b"2"):
            transport.sendto(data)
        answers = [await asyncio.wait_for(client.received.get(), 5) for _ in range(3)]
        assert answers == [b"no 1", b"urgent", b"no 2"]
        assert binding.lines() == [b"urgent"]
        lag = 0.0
        transport.sendto(b"3")
        assert await asyncio.wait_for(client.received.get(), 5) == b"3"
        transport.close()


@run_async
async def test_a_stream_waits_while_the_service_is_behind_and_loses_nothing() -> None:
    lag = BEHIND * 2
    async with serving("tcp", lag=lambda: lag) as (_, binding, [address]):
        reader, writer = await asyncio.open_connection(*address)
        lines = [b"%05d" % number for number in range(20_000)]
        writer.write(b"".join(line + b"\n" for line in lines))
        await binding.until(lambda: len(binding.links) == 1)
        assert binding.lines() == []
        lag = 0.0
        for line in lines:
            assert await asyncio.wait_for(reader.readline(), 5) == line + b"\n"
        writer.close()


@run_async
async def test_a_stream_paused_with_octets_in_hand_goes_on_where_it_stopped() -> None:
    asked: asyncio.Queue[float] = asyncio.Queue()
    behind = BEHIND * 2

    def lag() -> float:
        asked.put_nowait(behind)
        return behind

    async with serving("tcp", lag=lag) as (_, binding, [address]):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"one\n")
        assert await asyncio.wait_for(asked.get(), 5) == behind
        [link] = binding.links
        link.pause_reading()
        behind = 0.0
        while await asyncio.wait_for(asked.get(), 5):
            pass
        assert binding.lines() == [], "its turn came while it was paused"
        link.resume_reading()
        assert await asyncio.wait_for(reader.readline(), 5) == b"one\n"
        writer.close()
