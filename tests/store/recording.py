"""What a process wrote, synced, renamed, sent and received, in order, as strace saw it.

``tracing`` gives the command that runs a program under strace; ``read`` gives the events of its log. Events stand in the order that
matters for power loss: what makes something less safe (a write, a "yes" on a socket) at the moment the call began, what makes
it safer (a sync, octets received) at the moment the call returned.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is missing (scripts/peers): power loss is NOT checked"
)

CALLS = (
    "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,"
    "sendto,sendmsg,recvfrom,recvmsg"
)

Kind = Literal["create", "write", "truncate", "sync-begin", "sync-end", "rename", "unlink", "send", "receive"]


@dataclass(frozen=True, slots=True)
class Event:
    """One step of the recorded process."""

    kind: Kind
    path: Path
    """The file; for "send" and "receive" a name of the socket."""
    data: bytes = b""
    number: int = 0
    """Offset of a write, length after a truncation, an identifier that joins both ends of a sync."""
    target: Path = Path()
    """Where a rename leads."""


def tracing(log: Path) -> list[str]:
    """The words before a command line that record it; the traced program stays the caller's child (-D)."""
    return [
        "strace",
        "-D",
        "-f",
        "--seccomp-bpf",
        "-y",
        "-xx",
        "-s",
        "16777216",
        "-o",
        str(log),
        "-e",
        f"trace={CALLS}",
    ]


def wait_for(log: Path, seconds: float = 60.0) -> None:
    """Wait until strace wrote how the traced program ended."""
    deadline = time.monotonic() + seconds
    last = re.compile(rb"^(\d+) +\+\+\+ (?:exited|killed).*\+\+\+\n\Z", re.M)
    while not (log.exists() and last.search(log.read_bytes()[-200:])):
        assert time.monotonic() < deadline, f"strace did not finish {log}"


def read(log: Path) -> list[Event]:
    """Every event of the log, in order."""
    begun: dict[str, str] = {}
    marks: dict[str, int] = {}
    events: list[Event] = []
    for number, line in enumerate(log.read_text("ascii").splitlines()):
        process, _, text = line.partition(" ")
        text = text.lstrip()
        if text.startswith(("+++", "---")):
            continue
        if text.endswith("<unfinished ...>"):
            begun[process] = text.removesuffix("<unfinished ...>")
            marks[process] = number
            # A sync that never returned is no sync; a write that never returned may have reached the disk all the same.
            events.extend(_begin(begun[process] + ") = 0", number))
            continue
        is_resumed = text.startswith("<...")
        if is_resumed:
            head = begun.pop(process)
            whole = head + text.partition("resumed>")[2]
            events.extend(_end(whole, marks.pop(process)))
        else:
            events.extend(_begin(text, number))
            events.extend(_end(text, number))
    return events


_CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?.*$")
_FILE = re.compile(r"^\d+<([^>]*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def _octets(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _path(text: str) -> Path:
    return Path(_octets(text).decode() if text.startswith("\\x") else text)


def _begin(text: str, number: int) -> Iterator[Event]:
    """What a call may have done as soon as it began."""
    call = _CALL.match(text)
    if call is None or int(call[3]) < 0:
        return
    name, arguments = call[1], call[2]
    strings = [_octets(part) for part in _STRING.findall(arguments)]
    file = _FILE.match(arguments)
    path = _path(file[1]) if file else Path()
    if file and arguments.startswith("(deleted)", file.end()):
        return
    match name:
        case "write" | "pwrite64" | "sendto" | "sendmsg":
            if name.startswith("send"):
                yield Event("send", path, b"".join(strings))
            elif name == "pwrite64":
                yield Event("write", path, strings[0], int(arguments.rpartition(", ")[2]))
            else:
                yield Event("write", path, strings[0], -1)
        case "ftruncate":
            yield Event("truncate", path, number=int(arguments.rpartition(", ")[2]))
        case "fsync" | "fdatasync":
            yield Event("sync-begin", path, number=number)
        case "rename" | "renameat" | "renameat2":
            yield Event("rename", Path(strings[0].decode()), target=Path(strings[1].decode()))
        case "unlink" | "unlinkat":
            yield Event("unlink", Path(strings[0].decode()))


def _end(text: str, sync: int) -> Iterator[Event]:
    """What a call had done when it returned."""
    call = _CALL.match(text)
    if call is None or int(call[3]) < 0:
        return
    name, arguments = call[1], call[2]
    file = _FILE.match(arguments)
    if file and arguments.startswith("(deleted)", file.end()):
        return
    path = _path(file[1]) if file else Path()
    match name:
        case "openat" if "O_CREAT" in arguments and call[4]:
            yield Event("create", _path(call[4]))
            if "O_TRUNC" in arguments:
                yield Event("truncate", _path(call[4]))
        case "fsync" | "fdatasync":
            yield Event("sync-end", path, number=sync)
        case "recvfrom" | "recvmsg":
            octets = b"".join(_octets(part) for part in _STRING.findall(arguments))
            yield Event("receive", path, octets[: int(call[3])])
