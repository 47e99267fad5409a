"""A disk that loses power: from recorded events to every directory a machine may find when it comes up again.

What fsync confirmed is there. Of everything later each file has, independently, nothing, all, a prefix, any subset in order, or
pages of 4 KiB each as it was at some moment since; the last write may be torn inside its page. Names (a new
file, a rename, an unlink) are there once the directory was synced; of later ones a prefix. The memory-mapped index (-shm)
is never there: SQLite makes it anew.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from tests.store.recording import Event

PAGE = 4096
SECTOR = 512
MOMENTS = 8
"""Different moments the pages of one file may show."""

Change = tuple[int, bytes | None]
"""(offset, octets) of a write, (length, None) of a truncation."""
Step = tuple[tuple[str, "File | None"], ...]
"""What one call did to names: each with the file it leads to now."""


def apply(content: bytearray, change: Change) -> None:
    """Do one change to a file's content."""
    position, octets = change
    if octets is None:
        del content[position:]
    content.extend(bytes(max(0, position - len(content))))
    if octets is not None:
        content[position : position + len(octets)] = octets


@dataclass(eq=False, slots=True)
class File:
    """One file: what is safe, and what happened since."""

    safe: bytearray = field(default_factory=bytearray)
    since: list[Change] = field(default_factory=list)
    syncs: dict[int, int] = field(default_factory=dict)
    """How many of ``since`` a sync under way covers, by its identifier."""

    def now(self) -> bytearray:
        """What the running program sees."""
        content = bytearray(self.safe)
        for change in self.since:
            apply(content, change)
        return content

    def synced(self, identifier: int) -> None:
        """Make safe what was there when that sync began."""
        count = self.syncs.pop(identifier)
        for change in self.since[:count]:
            apply(self.safe, change)
        del self.since[:count]
        self.syncs = {other: max(0, covered - count) for other, covered in self.syncs.items()}

    def after_power_loss(self, dice: random.Random | None) -> bytes:
        """One content the file may have; None: only what is safe."""
        if dice is None or not self.since:
            return bytes(self.safe)
        # A truncation is the file system's own record: what was written after it is not there without it.
        cuts = [place for place, (_, octets) in enumerate(self.since) if octets is None]
        reached = dice.randrange(len(cuts) + 1)
        last = cuts[reached] if reached < len(cuts) else len(self.since)
        base = cuts[reached - 1] + 1 if reached else 0
        content = bytearray(self.safe)
        for change in _chosen(self.since[:base], dice):
            apply(content, change)
        kept = self.since[base:last]
        if dice.random() < 0.3:
            return _pages(content, kept, dice)
        kept = _chosen(kept, dice)
        if kept and dice.random() < 0.5:
            kept[-1] = _torn(kept[-1], dice)
        for change in kept:
            apply(content, change)
        return bytes(content)


def _chosen(changes: list[Change], dice: random.Random) -> list[Change]:
    """No write, all, a prefix or any subset, in order; and every truncation."""
    kind = dice.choice(("none", "all", "prefix", "subset"))
    count = {"none": 0, "all": len(changes), "prefix": dice.randrange(len(changes) + 1), "subset": len(changes)}[kind]
    share = dice.random() if kind == "subset" else 1.0
    return [
        change
        for place, change in enumerate(changes)
        if change[1] is None or (place < count and (share == 1.0 or dice.random() < share))
    ]


def _torn(change: Change, dice: random.Random) -> Change:
    """A write of which only the first sectors reached the disk; one sector is written whole or not at all."""
    offset, octets = change
    assert octets is not None, "no truncation is behind the last one reached"
    ends = range(SECTOR - offset % SECTOR, len(octets), SECTOR)
    return offset, octets[: dice.choice((0, *ends))]


def _pages(content: bytearray, kept: list[Change], dice: random.Random) -> bytes:
    """Each page as it was at some moment of its own; the length as at one of them."""
    looks = {0, *(dice.randrange(len(kept) + 1) for _ in range(MOMENTS))}
    moments = []
    for count, change in enumerate([*kept, (0, b"")]):
        if count in looks:
            moments.append(bytes(content))
        apply(content, change)
    length = len(dice.choice(moments))
    parts = []
    for start in range(0, length, PAGE):
        part = dice.choice(moments)[start : start + PAGE]
        parts.append(part.ljust(min(PAGE, length - start), b"\0"))
    return b"".join(parts)[:length]


class Disk:
    """The files of one directory, fed with events."""

    def __init__(self, directory: Path) -> None:
        self.lies_about: frozenset[str] = frozenset()
        """Files that are no longer synced, whatever the disk says (F-02)."""
        self._directory = directory
        self._names: dict[str, File] = {}
        self._safe_names: dict[str, File] = {}
        self._steps: list[Step] = []
        """Changes of names since the directory was synced."""
        self._syncs: dict[int, int] = {}
        for path in directory.iterdir():
            if path.is_file() and not path.name.endswith("-shm"):
                self._names[path.name] = File(bytearray(path.read_bytes()))
        self._safe_names.update(self._names)

    def feed(self, event: Event) -> bool:
        """Take one event; True if a crash now may find something else than before it."""
        if event.path == self._directory:
            return self._directory_sync(event)
        if event.path.parent != self._directory or event.path.name.endswith("-shm"):
            return False
        name = event.path.name
        file = self._names.get(name)
        match event.kind:
            case "create":
                if file is not None:
                    return False
                self._step((name, File()))
            case "rename":
                assert file is not None
                self._step((event.target.name, file), (name, None))
            case "unlink":
                self._step((name, None))
            case _:
                if file is None:
                    raise AssertionError(f"{event.kind} of {name}, which was never opened")
                return self._content(file, event)
        return True

    def _content(self, file: File, event: Event) -> bool:
        match event.kind:
            case "write":
                offset = len(file.now()) if event.number < 0 else event.number
                file.since.append((offset, event.data))
            case "truncate":
                file.since.append((event.number, None))
            case "sync-begin":
                file.syncs[event.number] = len(file.since)
                return False
            case "sync-end" if event.path.name in self.lies_about:
                del file.syncs[event.number]
            case "sync-end":
                file.synced(event.number)
            case _:
                return False
        return True

    def _step(self, *step: tuple[str, File | None]) -> None:
        self._steps.append(step)
        _lead(self._names, step)

    def _directory_sync(self, event: Event) -> bool:
        if event.kind == "sync-begin":
            self._syncs[event.number] = len(self._steps)
        elif event.kind == "sync-end":
            count = self._syncs.pop(event.number)
            for step in self._steps[:count]:
                _lead(self._safe_names, step)
            del self._steps[:count]
        return event.kind == "sync-end"

    def after_power_loss(self, dice: random.Random | None) -> dict[str, bytes]:
        """One directory that may be found; None: only what is safe."""
        names = dict(self._safe_names)
        if dice is not None:
            for step in self._steps[: dice.randrange(len(self._steps) + 1)]:
                _lead(names, step)
        return {name: file.after_power_loss(dice) for name, file in names.items()}


def _lead(names: dict[str, File], step: Step) -> None:
    for name, file in step:
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file


def lay_out(directory: Path, files: dict[str, bytes]) -> None:
    """Make the directory that was found."""
    directory.mkdir(mode=0o700)
    for name, content in files.items():
        (directory / name).write_bytes(content)
