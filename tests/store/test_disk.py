"""The disk of the power-loss replay, tested first: what it gives back may be too little by the rules, never too much."""

from __future__ import annotations

import random
from pathlib import Path

from tests.store.recording import Event, Kind
from tests.store.replay import Disk


def made(directory: Path, *steps: tuple[Kind, str, bytes, int]) -> Disk:
    """A disk with one safe file "old" that took the steps."""
    directory.mkdir()
    (directory / "old").write_bytes(b"safe")
    disk = Disk(directory)
    for kind, name, data, number in steps:
        target = directory / data.decode() if kind == "rename" else Path()
        disk.feed(Event(kind, directory / name, b"" if kind == "rename" else data, number, target))
    return disk


def found(disk: Disk, tries: int = 400) -> set[tuple[tuple[str, bytes], ...]]:
    """Everything that may be found."""
    dice = random.Random(1)
    return {tuple(sorted(disk.after_power_loss(dice).items())) for _ in range(tries)}


def test_what_was_written_and_not_synced_may_be_there_or_not(tmp_path: Path) -> None:
    disk = made(tmp_path / "d", ("write", "old", b"S", 0), ("write", "old", b"F", 2))
    assert disk.after_power_loss(None) == {"old": b"safe"}
    assert found(disk) == {(("old", content),) for content in (b"safe", b"Safe", b"saFe", b"SaFe")}


def test_a_sync_makes_safe_what_was_written_before_it_began(tmp_path: Path) -> None:
    sync: list[tuple[Kind, str, bytes, int]] = [("sync-begin", "old", b"", 1), ("sync-end", "old", b"", 1)]
    disk = made(tmp_path / "d", ("write", "old", b"S", 0), sync[0], ("write", "old", b"F", 2), sync[1])
    assert disk.after_power_loss(None) == {"old": b"Safe"}
    assert found(disk) == {(("old", b"Safe"),), (("old", b"SaFe"),)}


def test_a_long_write_is_torn_between_sectors(tmp_path: Path) -> None:
    disk = made(tmp_path / "d", ("write", "old", b"x" * 1024, 0))
    longer = b"safe".ljust(1024, b"\0")  # the length is there, the page is not, or the other way round
    contents = (b"safe", b"x" * 512, b"x" * 1024, longer, b"xxxx")
    assert found(disk) == {(("old", content),) for content in contents}


def test_a_truncation_is_there_before_anything_written_after_it(tmp_path: Path) -> None:
    disk = made(tmp_path / "d", ("truncate", "old", b"", 0), ("write", "old", b"n", 0))
    assert found(disk) == {(("old", content),) for content in (b"safe", b"", b"n", b"\0")}


def test_a_new_name_is_there_once_the_directory_was_synced(tmp_path: Path) -> None:
    steps: list[tuple[Kind, str, bytes, int]] = [("create", "a", b"", 0), ("rename", "a", b"b", 0)]
    disk = made(tmp_path / "d", *steps)
    assert disk.after_power_loss(None) == {"old": b"safe"}
    old = ("old", b"safe")
    assert found(disk) == {(old,), (("a", b""), old), (("b", b""), old)}
    disk.feed(Event("sync-begin", tmp_path / "d", number=1))
    disk.feed(Event("sync-end", tmp_path / "d", number=1))
    assert disk.after_power_loss(None) == {"b": b"", "old": b"safe"}
