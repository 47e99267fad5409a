"""Every failpoint of the program: its row of reliability.md section 3.2, where it can fire, and the plan that fires it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.proof.nemesis import Fault, Life
from tests.proof.things import Level

Sink = Literal["any", "sip", "xmpp", "none"]


@dataclass(frozen=True, slots=True)
class Point:
    """One failpoint, or one point passed in one special way."""

    row: str
    """Of reliability.md section 3.2."""
    plan: tuple[Life, ...]
    fires: int = 1
    """Kills at failpoints that the plan must show."""
    sinks: Sink = "any"
    """Recipients it can fire for; "none": it fires whoever they are, so one pair is enough."""
    has_stored: bool = True
    """It can fire while the recipient is away or has just come, too."""
    needs_stream: bool = False
    """It cannot fire over datagrams."""
    levels: tuple[Level, ...] = ()
    special: Literal["", "refusing", "resuming"] = ""
    is_for_all: bool = False
    """Only ``make prove`` goes there: it waits 15 s for a place in the same transaction as another point."""
    kept_if: str = ""
    """The row's promise in a few words."""


def _at(failpoint: str) -> tuple[Life, ...]:
    return (Life(failpoint, seconds=25),)


AGAIN = "absent, or sent again and delivered once"
ONCE = "delivered once; the resend is recognised"
SAME = "delivered at least once, a repeat under the same identifiers"
LOAD = Life(seconds=1.0)

POINTS: dict[str, Point] = {
    "net.read": Point("F-K1", _at("net.read:70"), kept_if=AGAIN),
    "service.before-commit": Point("F-K2", _at("service.before-commit:6"), kept_if=AGAIN),
    "store.before-insert": Point("F-K3", _at("store.before-insert:20"), kept_if=AGAIN),
    "store.before-commit": Point("F-K3", _at("store.before-commit:20"), kept_if=AGAIN),
    "store.after-commit": Point("F-K4", _at("store.after-commit:20"), kept_if=ONCE),
    "service.after-commit": Point("F-K4", _at("service.after-commit:6"), kept_if=ONCE),
    "net.written": Point("F-K5 F-K8", _at("net.written:70"), kept_if=SAME),
    "delivery.lease-taken": Point("F-K6", _at("delivery.lease-taken:4"), kept_if="delivered once"),
    "net.half-written": Point(
        "F-K7", _at("net.half-written:1"), needs_stream=True, levels=("large",), kept_if="delivered once"
    ),
    "delivery.before-ack": Point("F-K8 F-K9", _at("delivery.before-ack:4"), kept_if=SAME),
    "store.ack.before-commit": Point("F-K9", _at("store.ack.before-commit:4"), kept_if=SAME),
    "delivery.after-ack": Point("F-K10", _at("delivery.after-ack:4"), kept_if="answered after the restart, once"),
    "service.report.before-commit": Point(
        "F-K11",
        _at("service.report.before-commit:2"),
        sinks="sip",
        has_stored=False,
        special="refusing",
        kept_if="reported once, never delivered",
    ),
    "service.report.after-commit": Point(
        "F-K11",
        _at("service.report.after-commit:2"),
        sinks="sip",
        has_stored=False,
        special="refusing",
        kept_if="reported once, never delivered",
    ),
    "store.checkpoint": Point(
        "F-K12",
        (LOAD, Life("store.checkpoint")),
        sinks="none",
        has_stored=False,
        kept_if="nothing acknowledged is missing",
    ),
    "store.retention.deleted": Point(
        "F-K12",
        (Life(seconds=1.0, ending="stop"), Life("store.retention.deleted", seconds=30, is_aged=True)),
        sinks="none",
        has_stored=False,
        kept_if="nothing acknowledged is missing",
    ),
    "store.expire.before-commit": Point(
        "F-K12",
        (LOAD, Life("store.expire.before-commit", seconds=30)),
        sinks="none",
        has_stored=False,
        is_for_all=True,
        kept_if="nothing acknowledged is missing",
    ),
    "store.recovery": Point(
        "F-K13",
        (LOAD, *(Life("store.recovery"),) * 3),
        fires=3,
        sinks="none",
        has_stored=False,
        kept_if="recovery three times is recovery once",
    ),
    "service.recovery": Point(
        "F-K13",
        (LOAD, *(Life("service.recovery"),) * 3),
        fires=3,
        sinks="none",
        has_stored=False,
        kept_if="recovery three times is recovery once",
    ),
    "server.drain": Point(
        "F-K15", (Life("server.drain", seconds=1.5, ending="stop"),), sinks="none", kept_if="as F-K6 and F-K8"
    ),
    "xmpp.resume": Point(
        "F-K19",
        (Life("xmpp.resume", seconds=10, faults=tuple(Fault(0.8 + n / 10, "cut", target=n) for n in range(4))),),
        sinks="xmpp",
        has_stored=False,
        special="resuming",
        kept_if="none dropped",
    ),
    "server.reload": Point(
        "F-K20",
        (Life("server.reload", seconds=10, faults=(Fault(0.8, "reload"),)),),
        sinks="none",
        has_stored=False,
        kept_if="the certificate stays valid, nothing is lost",
    ),
}
"""By name; ``store.migration`` (F-K14) needs a server that never ran: test_failpoints.py has it by itself."""

#: Failpoints that no message passes: the test that fires each by name, from the root of the tree.
ELSEWHERE: dict[str, str] = {
    "presence.between-halves": "tests/service/presence/test_crash.py",
    "presence.recovery": "tests/service/presence/test_crash.py",
    "presence.before-commit": "tests/service/presence/test_watch_crash.py",
    "presence.after-commit": "tests/service/presence/test_watch_crash.py",
    "presence.begin": "tests/service/presence/test_watch_crash.py",
    "presence.revoke": "tests/service/presence/test_watch_crash.py",
}
