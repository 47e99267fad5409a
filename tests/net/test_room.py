"""Memory that is left, by control group and by address space (F-08)."""

from __future__ import annotations

from pathlib import Path

from comity.net.limits import Gate, NetLimits
from comity.net.room import LOOK_AFTER, LOOK_SECONDS, RESERVE, MemoryRoom, group_limit
from comity.testing.clock import FakeClock
from tests.net.test_memory import resident


def test_bound_of_either_kind_of_control_group_is_found(tmp_path: Path) -> None:
    two = tmp_path / "system.slice" / "comity.service"
    two.mkdir(parents=True)
    (two / "memory.max").write_text("max\n")
    (tmp_path / "system.slice" / "memory.max").write_text("268435456\n")
    assert group_limit("0::/system.slice/comity.service\n", tmp_path) == 268435456
    one = tmp_path / "memory" / "box"
    one.mkdir(parents=True)
    (one / "memory.limit_in_bytes").write_text("134217728\n")
    assert group_limit("3:cpu,cpuacct:/box\n4:memory:/box\n0::/\n", tmp_path) == 134217728
    (one / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert group_limit("4:memory:/box\n", tmp_path) is None
    assert group_limit("4:memory:/elsewhere\n0::/elsewhere\n", tmp_path / "none") is None


def test_nobody_is_let_in_while_the_reserve_is_touched() -> None:
    clock = FakeClock()
    assert Gate(NetLimits(), clock).admit("192.0.2.1") == ""
    roomy = MemoryRoom(clock, resident() + 4 * RESERVE)
    assert Gate(NetLimits(), clock, roomy).admit("192.0.2.1") == ""
    tight = MemoryRoom(clock, resident() + RESERVE // 2)
    gate = Gate(NetLimits(), clock, tight)
    assert gate.admit("192.0.2.1") == "Connection refused: memory is short"
    assert (gate.total, gate.unauthenticated) == (0, 0)
    tight._group = resident() + 4 * RESERVE
    assert gate.admit("192.0.2.1") == "Connection refused: memory is short", "it looks ten times a second at most"
    clock.advance(LOOK_SECONDS)
    assert gate.admit("192.0.2.1") == ""


def test_a_rush_is_looked_at_more_often() -> None:
    """F-08: what ten thousand connections a second take between two looks must fit into the reserve."""
    clock = FakeClock()
    room = MemoryRoom(clock, resident() + 4 * RESERVE)
    assert not room.is_short
    room._group = resident() + RESERVE // 2
    assert [room.is_short for _ in range(LOOK_AFTER)] == [False] * (LOOK_AFTER - 1) + [True]
