"""Says from a history alone whether the promise was kept: one function per invariant of reliability.md section 5.8.

    python -m tests.proof.checker history.jsonl [--log FILE …] [--json]

Exit 0: kept. 1: broken, with the first violation. 2: this is not the history of a whole run. I11 (required protection)
has nothing to say yet: no message here carries any.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path

import msgspec

from tests.proof.history import Event, read
from tests.proof.ledger import Ledger, Message

STALE_S = 60.0
"""How long somebody may be shown as there after a crash that ended what was known of it (gate G9)."""
WINDOW = 32
"""Most repeats a destination may see for one kill (gate G2)."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken invariant."""

    invariant: str
    text: str
    at: int
    """Line of the history, from 1; 0 if it is not about one."""


Finding = Iterator[Violation]


def i1_nothing_acknowledged_is_lost(ledger: Ledger) -> Finding:
    """acked ⇒ delivered or reported, by the end of the drain."""
    for message, kind in _lost(ledger):
        end = next(attempt for attempt in message.attempts if attempt.op == "ok")
        where = f"{message.first.conv} #{message.first.k}, {kind} of its lane"
        yield Violation("I1", f"{message.id} ({where}) was acknowledged and lost", end.ended_at + 1)


def i2_nothing_comes_from_nowhere(ledger: Ledger) -> Finding:
    """delivered ⇒ somebody had sent that, to this user."""
    for message in ledger.messages.values():
        for at, event in message.deliveries:
            if not message.attempts or message.attempts[0].at > at:
                yield Violation("I2", f"{event.proc} got {message.id or event.sha256}, which nobody had sent", at + 1)
            elif event.user != message.first.notes.get("to"):
                yield Violation("I2", f"{event.proc} got {message.id}, which was not for it", at + 1)


def i3_no_is_no(ledger: Ledger) -> Finding:
    """A definite refusal of every attempt ⇒ never delivered."""
    for message in ledger.sent:
        if message.is_refused and message.deliveries:
            at, event = message.deliveries[0]
            yield Violation("I3", f"{event.proc} got {message.id}, which was refused", at + 1)


def i4_not_delivered_and_failed(ledger: Ledger) -> Finding:
    """Delivered and "failed" reported exclude each other; "unknown" may stand beside either."""
    for message in ledger.sent:
        failed = [at for at, event in message.reports if event.level == "failed"]
        if failed and message.deliveries:
            yield Violation("I4", f"{message.id} was delivered, and its failure reported", failed[0] + 1)


def i5_order_per_lane_and_device(ledger: Ledger) -> Finding:
    """What was accepted earlier arrives earlier, at each device of the recipient; repeats move nothing."""
    for conv, lane in ledger.lanes().items():
        arrivals: dict[str, list[tuple[int, Message]]] = {}
        for message in lane:
            for device in {event.proc for _, event in message.deliveries}:
                first = next(at for at, event in message.deliveries if event.proc == device)
                arrivals.setdefault(device, []).append((first, message))
        for device, arrived in arrivals.items():
            arrived.sort(key=lambda pair: pair[0])
            ahead: list[Message] = []
            """Arrived already, with a greater number than the next one to look at could have."""
            for at, message in arrived:
                ahead = [other for other in ahead if other.first.k > message.first.k]
                for other in ahead:
                    if _was_accepted_before(message, other):
                        text = f"{device} got {conv} #{other.first.k} before #{message.first.k}, accepted earlier"
                        yield Violation("I5", text, at + 1)
                ahead.append(message)


def _was_accepted_before(message: Message, other: Message) -> bool:
    """In each session that handed ``other`` in, ``message`` came first and was not refused; or it was acked before."""
    for later in other.attempts:
        has_ack = any(a.op == "ok" and a.ended_at < later.at for a in message.attempts)
        came_first = any(a.session == later.session and a.at < later.at and a.op != "fail" for a in message.attempts)
        if not has_ack and not came_first:
            return False
    return True


def i6_repeats_have_a_cause(ledger: Ledger) -> Finding:
    """A repeat has a cause, carries the same identifier, and there are at most ``WINDOW`` a kill and destination (G2)."""
    per_kill: Counter[tuple[str, int]] = Counter()
    for message, device, copies in chain(_copies(ledger), _repeated_reports(ledger)):
        for (first, before), (again, event) in pairwise(copies):
            if before.notes.get("wire") != event.notes.get("wire"):
                text = f"{device} got {message.id} twice under different identifiers: two messages were made of one"
                yield Violation("I6", text, again + 1)
            elif not (cause := ledger.cause(device, first, again)):
                yield Violation("I6", f"{device} got {message.id} twice without a cause", again + 1)
            elif cause == "kill":
                key = (device, ledger.starts_before(first))  # it was in flight when that life ended
                per_kill[key] += 1
                if per_kill[key] == WINDOW + 1:
                    yield Violation("I6", f"{device} got more than {WINDOW} repeats for one kill", again + 1)


def i7_octets_are_equal(ledger: Ledger) -> Finding:
    """SHA-256 at ingress and at every egress are equal."""
    for message in ledger.sent:
        for at, event in message.deliveries:
            if event.sha256 != message.first.sha256:
                yield Violation("I7", f"{event.proc} got other octets of {message.id}", at + 1)
            elif event.level.startswith("signed:") and event.level != "signed:valid":
                yield Violation("I7", f"the signature of {message.id} is {event.level[7:]} at {event.proc}", at + 1)


def i8_delivered_is_said_after_delivery(ledger: Ledger) -> Finding:
    """A "delivered" to the sender ⇒ the delivery happened before it."""
    for message in ledger.sent:
        said = [at for at, event in message.reports if event.level == "delivered"]
        said += [a.ended_at for a in message.attempts if a.op == "ok" and a.end and a.end.level == "delivered"]
        for at in said:
            if not any(delivered < at for delivered, _ in message.deliveries):
                yield Violation("I8", f"the sender of {message.id} was told of a delivery that was not", at + 1)


def i9_presence_ends_when_it_was_ended(ledger: Ledger) -> Finding:
    """G9: nothing said after an acknowledged revocation or leaving is told; nobody is "open" 60 s after a crash unsaid."""
    said: dict[tuple[str, int], int] = {}
    ended: dict[str, tuple[int, str]] = {}
    for at, event in ledger.presence:
        presentity = event.conv.partition(">")[0]
        if event.op == "say":
            said[event.user, event.k] = at
        elif event.op == "notice":
            if event.conv in ended and said.get((presentity, event.k), -1) > ended[event.conv][0]:
                since, how = ended[event.conv]
                text = f"{event.proc} was told #{event.k} of {presentity}, said after the acknowledged {how} (line {since + 1})"
                yield Violation("I9", text, at + 1)
        elif event.op == "allow" and event.level == "asked":
            ended.pop(event.conv, None)
        elif event.op in ("revoke", "leave") and event.level == "done":
            ended.setdefault(event.conv, (at, event.op))
    yield from _stale(ledger, said)


def _stale(ledger: Ledger, said: dict[tuple[str, int], int]) -> Finding:
    """Watchers by SIP who were last told "open" before a death and nothing since, too long after the next start; who watches by
    XMPP lost its stream with the server and shows nobody."""
    bound = float(ledger.marks["begin"][0][1].notes.get("stale_s", STALE_S))
    last_seen = ledger.events[-1].t if ledger.events else 0.0
    for start in ledger.starts:
        if not any(death < start for death in ledger.deaths):
            continue
        until = ledger.events[start].t + bound
        shown: dict[tuple[str, str], tuple[int, Event]] = {}
        for at, event in ledger.presence:
            if event.t > until:
                break
            pair = (event.proc, event.conv)
            if event.op == "notice" and event.edge.startswith("sip"):
                shown[pair] = (at, event)
            elif event.op in ("revoke", "leave"):
                shown = {key: value for key, value in shown.items() if key[1] != event.conv}
        for (device, conv), (at, event) in shown.items():
            presentity = conv.partition(">")[0]
            is_unsaid = said.get((presentity, event.k), -1) < start
            if at < start and event.level == "open" and is_unsaid and last_seen >= until:
                text = f"{device} still saw {presentity} open {bound:g} s after the server was there again"
                yield Violation("I9", text, at + 1)


def i10_the_sender_shown_is_the_one_who_signed_in(ledger: Ledger) -> Finding:
    """Visible sender = authenticated principal, in the envelope and in the object (gate G8)."""
    for message in ledger.sent:
        for at, event in message.deliveries:
            shown = [event.notes.get(name, "") for name in ("from", "inner")]
            for sender in shown:
                if sender not in ("", message.first.user):
                    text = f"{event.proc} got {message.id} of {message.first.user} as if from {sender}"
                    yield Violation("I10", text, at + 1)


def i13_bounds_hold(ledger: Ledger) -> Finding:
    """Memory, descriptors and queues stay within the bounds the run began with, at every sample."""
    bounds = ledger.marks["begin"][0][1].notes
    for at, event in ledger.marks["sample"]:
        for name, value in event.notes.items():
            if name in bounds and int(value) > int(bounds[name]):
                yield Violation("I13", f"{name} is {value}, more than {bounds[name]}", at + 1)


def i14_recovery_twice_is_recovery_once(ledger: Ledger) -> Finding:
    """After the drain the server is killed and started again, several times: nothing comes any more."""
    quiet = ledger.marks["quiet"][0][0]
    for message in ledger.messages.values():
        for at, event in (*message.deliveries, *message.reports):
            if at > quiet:
                yield Violation("I14", f"{event.proc} got {event.op} {message.id} when all was over", at + 1)


INVARIANTS: dict[str, Callable[[Ledger], Finding]] = {
    "I1": i1_nothing_acknowledged_is_lost,
    "I2": i2_nothing_comes_from_nowhere,
    "I3": i3_no_is_no,
    "I4": i4_not_delivered_and_failed,
    "I5": i5_order_per_lane_and_device,
    "I6": i6_repeats_have_a_cause,
    "I7": i7_octets_are_equal,
    "I8": i8_delivered_is_said_after_delivery,
    "I9": i9_presence_ends_when_it_was_ended,
    "I10": i10_the_sender_shown_is_the_one_who_signed_in,
    "I13": i13_bounds_hold,
    "I14": i14_recovery_twice_is_recovery_once,
}


def i12_logs_hold_no_secret(ledger: Ledger, logs: Sequence[Path]) -> Finding:
    """No message and no password in a log, neither plain nor in hex or base64."""
    secrets = {name: ledger.marks["begin"][0][1].notes.get(name, "") for name in ("canary", "password")}
    for path in logs:
        octets = path.read_bytes()
        for name, secret in secrets.items():
            if secret and any(form in octets for form in _forms(secret.replace("+", " ").encode())):
                yield Violation("I12", f"{path} holds the {name}", 0)


def _forms(secret: bytes) -> set[bytes]:
    """How a secret may look in a log; base64 in each of its three alignments, without the uncertain ends."""
    shifted = {base64.b64encode(b"\0" * pad + secret).rstrip(b"=")[4:-4] for pad in range(3)}
    return {secret, secret.hex().encode(), *shifted}


Copies = tuple[Message, str, list[tuple[int, Event]]]


def _copies(ledger: Ledger) -> Iterator[Copies]:
    """Messages that a device got more than once, with the copies in order."""
    for message in ledger.sent:
        if len(message.deliveries) < 2:
            continue
        for device in sorted({event.proc for _, event in message.deliveries}):
            copies = [(at, event) for at, event in message.deliveries if event.proc == device]
            if len(copies) > 1:
                yield message, device, copies


def _repeated_reports(ledger: Ledger) -> Iterator[Copies]:
    """The same for reports of failures: each is made once (F-K11). Those of deliveries are messages in the history."""
    for message in ledger.sent:
        if len(message.reports) < 2:
            continue
        for device in sorted({event.proc for _, event in message.reports}):
            copies = [(at, e) for at, e in message.reports if e.proc == device and e.level != "delivered"]
            if len(copies) > 1:
                yield message, device, copies


def _lost(ledger: Ledger) -> Iterator[tuple[Message, str]]:
    """Messages acknowledged and neither delivered nor reported; where in their lane: the middle is the damning one."""
    for lane in ledger.lanes().values():
        places = [place for place, message in enumerate(lane) if message.deliveries]
        for place, message in enumerate(lane):
            if message.is_acked and not message.deliveries and not message.is_reported_failed:
                has_before = bool(places) and places[0] < place
                has_after = bool(places) and places[-1] > place
                yield message, "middle" if has_before and has_after else "postfix" if has_before else "prefix"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checker found, counted in Jepsen's manner."""

    attempts: int
    sent: int
    acked: int
    ok: int
    """Acknowledged and delivered."""
    reported: int
    """Acknowledged and reported as failed."""
    refused: int
    lost_prefix: int
    lost_middle: int
    lost_postfix: int
    recovered: int
    """Never acknowledged, and delivered all the same."""
    unexpected: int
    """Delivered, and nobody had sent it."""
    duplicates: dict[str, int]
    """Repeats by cause."""
    out_of_order: int
    deliveries: int
    kills: int
    violations: tuple[Violation, ...]


def check(ledger: Ledger, logs: Sequence[Path] = ()) -> Verdict:
    """Hold every invariant against a history. Raises ValueError if it is not that of a whole run."""
    for level in ("begin", "quiet"):
        if not ledger.marks[level]:
            raise ValueError(f'not the history of a whole run: it has no "{level}"')
    found = [violation for invariant in INVARIANTS.values() for violation in invariant(ledger)]
    found += i12_logs_hold_no_secret(ledger, logs)
    lost = Counter(kind for _, kind in _lost(ledger))
    duplicates: Counter[str] = Counter()
    for _, device, copies in _copies(ledger):
        duplicates.update(ledger.cause(device, a[0], b[0]) or "none" for a, b in pairwise(copies))
    sent = ledger.sent
    return Verdict(
        attempts=sum(len(message.attempts) for message in sent),
        sent=len(sent),
        acked=sum(message.is_acked for message in sent),
        ok=sum(message.is_acked and bool(message.deliveries) for message in sent),
        reported=sum(message.is_acked and message.is_reported_failed for message in sent),
        refused=sum(message.is_refused for message in sent),
        lost_prefix=lost["prefix"],
        lost_middle=lost["middle"],
        lost_postfix=lost["postfix"],
        recovered=sum(not message.is_acked and bool(message.deliveries) for message in sent),
        unexpected=sum(violation.invariant == "I2" for violation in found),
        duplicates=dict(duplicates),
        out_of_order=sum(violation.invariant == "I5" for violation in found),
        deliveries=sum(len(message.deliveries) for message in ledger.messages.values()),
        kills=len(ledger.deaths),
        violations=tuple(found),
    )


def as_text(verdict: Verdict) -> str:
    """For people: the counts on two lines, then the first violation."""
    v = verdict
    lines = [
        f"attempts {v.attempts}, sent {v.sent}, acked {v.acked}: ok {v.ok}, reported failed {v.reported}, "
        f"lost prefix {v.lost_prefix} / middle {v.lost_middle} / postfix {v.lost_postfix}; refused {v.refused}",
        f"recovered {v.recovered}, unexpected {v.unexpected}, out of order {v.out_of_order}, duplicates "
        f"{sum(v.duplicates.values())} {v.duplicates or ''}; deliveries {v.deliveries}, kills {v.kills}",
    ]
    if v.violations:
        first = v.violations[0]
        per = Counter(violation.invariant for violation in v.violations)
        lines.append(f"BROKEN {dict(per)}; first: {first.invariant} at line {first.at}: {first.text}")
    else:
        lines.append("kept: " + " ".join([*INVARIANTS, "I12"]))
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.checker", description=__doc__.splitlines()[0])
    parser.add_argument("history", type=Path)
    parser.add_argument("--log", type=Path, action="append", default=[], help="a log to look for secrets in")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        verdict = check(Ledger(read(options.history)), options.log)
    except (ValueError, msgspec.MsgspecError, OSError) as error:
        print(f"{options.history}: {error}", file=sys.stderr)
        return 2
    print(msgspec.json.encode(asdict(verdict)).decode() if options.json else as_text(verdict))
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
