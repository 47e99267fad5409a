"""The checker is tested first: thirteen hand-made bad histories, one per invariant, and good ones (reliability.md 5.9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.proof import checker
from tests.proof.history import Event, History, read
from tests.proof.ledger import Ledger

ALICE, BOB, BOBS_PC = "alice/sip-tcp", "bob/xmpp-tcp", "bob/sip-udp"
CANARY = "canary-5d3c"


class Story:
    """Writes a history by hand, in the order things happen."""

    def __init__(self, path: Path) -> None:
        self.history = History(path)
        self.history.mark("begin", f"rss=1000 waiting=50 canary={CANARY} password=correct+horse")
        self.history.mark("ready")
        self.session = 1

    def sent(self, k: int, *, id: str = "") -> None:
        """Alice hands message ``k`` to the server."""
        note = f"session={self.session} to=bob"
        self.history.add("invoke", ALICE, conv="c1", k=k, id=id or f"m{k}", sha256=f"hash{k}", note=note)

    def ended(self, k: int, op: str, level: str = "") -> None:
        """Its attempt ends: ok, fail or info."""
        assert op in ("ok", "fail", "info")
        self.history.add(op, ALICE, conv="c1", k=k, id=f"m{k}", level=level)  # type: ignore[arg-type]  # one of three

    def acked(self, *ks: int) -> None:
        """Alice sends messages and the server says yes to each."""
        for k in ks:
            self.sent(k)
            self.ended(k, "ok", "accepted")

    def got(self, *ks: int, device: str = BOB, hash: str = "", sender: str = "alice", wire: str = "") -> None:
        """A device of Bob's gets messages."""
        for k in ks:
            note = f"from={sender} inner={sender} wire={wire or f'w{k}'}"
            self.history.add("deliver", device, conv="c1", k=k, id=f"m{k}", sha256=hash or f"hash{k}", note=note)

    def told(self, k: int, level: str) -> None:
        """Alice is told about a message of hers."""
        self.history.add("report", ALICE, id=f"m{k}", level=level)

    def mark(self, level: str, note: str = "", proc: str = "nemesis") -> None:
        """Something of the run itself."""
        self.history.mark(level, note, proc)

    def end(self) -> Path:
        """All is quiet; the history is on disk."""
        self.mark("quiet")
        self.history.mark("ready")
        return self.history.path


def lost(story: Story) -> None:
    story.acked(0, 1, 2)
    story.got(0, 2)


def from_nowhere(story: Story) -> None:
    story.acked(0)
    story.got(0, 7)


def refused_and_delivered(story: Story) -> None:
    story.sent(0)
    story.ended(0, "fail", "denied")
    story.got(0)


def delivered_and_failed(story: Story) -> None:
    story.acked(0)
    story.got(0)
    story.told(0, "failed")


def out_of_order(story: Story) -> None:
    story.acked(0, 1, 2)
    story.got(0, 2, 1)


def repeated_without_cause(story: Story) -> None:
    story.acked(0, 1)
    story.got(0, 1, 1)


def other_octets(story: Story) -> None:
    story.acked(0)
    story.got(0, hash="changed")


def told_too_early(story: Story) -> None:
    story.sent(0)
    story.ended(0, "ok", "delivered")
    story.got(0)


def told_after_the_revocation(story: Story) -> None:
    add = story.history.add
    add("say", ALICE, k=1, level="open")
    add("revoke", ALICE, conv="alice>bob", level="asked")
    add("say", ALICE, k=2, level="open")
    add("revoke", ALICE, conv="alice>bob", level="done")
    add("notice", BOB, conv="alice>bob", k=2, level="open")  # on its way already
    add("say", ALICE, k=3, level="closed")
    add("notice", BOB, conv="alice>bob", k=3, level="closed")


def wrong_sender(story: Story) -> None:
    story.acked(0)
    story.got(0, sender="mallory")


def too_much_memory(story: Story) -> None:
    story.mark("sample", "rss=1001 waiting=3")


def recovered_twice(story: Story) -> None:
    story.acked(0)
    story.got(0)
    story.mark("died")
    story.mark("quiet")
    story.mark("ready")
    story.got(0)


BAD: dict[str, Callable[[Story], None]] = {
    "I1": lost,
    "I2": from_nowhere,
    "I3": refused_and_delivered,
    "I4": delivered_and_failed,
    "I5": out_of_order,
    "I6": repeated_without_cause,
    "I7": other_octets,
    "I8": told_too_early,
    "I9": told_after_the_revocation,
    "I10": wrong_sender,
    "I13": too_much_memory,
    "I14": recovered_twice,
}


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    story = Story(tmp_path / "history.jsonl")
    with story.history:
        yield story


def verdict(story: Story) -> checker.Verdict:
    return checker.check(Ledger(read(story.end())))


@pytest.mark.parametrize("invariant", BAD)
def test_each_bad_history_fails_by_its_own_invariant(
    story: Story, invariant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    BAD[invariant](story)
    found = verdict(story)
    assert {violation.invariant for violation in found.violations} == {invariant}
    assert checker.main([str(story.history.path)]) == 1
    assert f"first: {invariant} at line" in capsys.readouterr().out


@pytest.mark.parametrize("text", [f"body: {CANARY}", "63616e6172792d35643363", "x Y29ycmVjdCBob3JzZQ== y"])
def test_a_log_with_a_message_or_a_password_in_it_fails_by_i12(story: Story, tmp_path: Path, text: str) -> None:
    """I12: the thirteenth bad history is a good one with a bad log; plain, hex and base64."""
    story.acked(0)
    story.got(0)
    log = tmp_path / "log"
    log.write_text("2026-11-23 INFO comity: ready\n")
    history = story.end()
    assert checker.main([str(history), "--log", str(log)]) == 0
    log.write_text(f"2026-11-23 DEBUG comity: {text}\n")
    found = checker.check(Ledger(read(history)), [log])
    assert [violation.invariant for violation in found.violations] == ["I12"]
    assert checker.main([str(history), "--log", str(log)]) == 1


def test_every_invariant_has_its_bad_history() -> None:
    assert [*BAD, "I12"] == [*checker.INVARIANTS, "I12"]
    assert len(BAD) + 1 == 13


def test_a_good_history_passes_with_its_figures(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    """Kills, an unanswered attempt that turned up, its resend, a refusal, a report, a repeat with its cause."""
    story.acked(0, 1)
    story.got(0)
    story.sent(2)
    story.mark("died")
    story.ended(2, "info", "lost")
    story.session = 2
    story.mark("ready")
    story.got(0, 1, 2)
    story.acked(3)
    story.told(3, "failed")
    story.sent(4)
    story.ended(4, "fail", "denied")
    story.mark("sample", "rss=999 waiting=50")
    found = verdict(story)
    assert found.violations == ()
    assert (found.attempts, found.sent, found.acked, found.ok) == (5, 5, 3, 2)
    assert (found.reported, found.refused, found.recovered, found.kills) == (1, 1, 1, 1)
    assert found.duplicates == {"kill": 1}
    assert checker.main([str(story.history.path), "--json"]) == 0
    assert '"violations":[]' in capsys.readouterr().out


def crash(*later: Event) -> Ledger:
    """Bob's phone saw Alice open when the server died; it came back at 10."""
    events = [
        Event(0, "nemesis", "info", level="begin"),
        Event(1, ALICE, "say", k=1, level="open"),
        Event(2, BOBS_PC, "notice", edge="sip/udp", conv="alice>bob", k=1, level="open"),
        Event(3, "nemesis", "info", level="died"),
        Event(10, "nemesis", "info", level="ready"),
        *later,
        Event(100, "nemesis", "info", level="quiet"),
    ]
    return Ledger(events)


def test_who_was_open_before_a_crash_is_closed_within_a_minute_unless_said_again() -> None:
    """I9, G9: told in time, told too late, not told, said again, and ended in between."""
    closed = Event(65, BOBS_PC, "notice", edge="sip/udp", conv="alice>bob", k=1, level="closed")
    again = Event(20, ALICE, "say", k=2, level="open")
    told = Event(21, BOBS_PC, "notice", edge="sip/udp", conv="alice>bob", k=2, level="open")
    left = Event(15, BOBS_PC, "leave", conv="alice>bob", level="done")
    for later, expected in (
        ((closed,), []),
        ((msgspec.structs.replace(closed, t=75),), ["I9"]),
        ((), ["I9"]),
        ((again, told), []),
        ((left,), []),
    ):
        assert [violation.invariant for violation in checker.check(crash(*later)).violations] == expected


def test_a_permission_given_again_counts_from_when_it_was_asked_for(story: Story) -> None:
    """I9: what is said after that may be told again."""
    add = story.history.add
    for op, level in (("revoke", "asked"), ("revoke", "done"), ("allow", "asked")):
        add(op, ALICE, conv="alice>bob", level=level)  # type: ignore[arg-type]  # two of the words
    add("say", ALICE, k=1, level="open")
    add("notice", BOB, conv="alice>bob", k=1, level="open")
    assert verdict(story).violations == ()


@pytest.mark.parametrize(("ks", "kind"), [((1, 2), "prefix"), ((0, 2), "middle"), ((0, 1), "postfix")])
def test_what_is_lost_is_placed_in_its_lane(story: Story, ks: tuple[int, ...], kind: str) -> None:
    story.acked(0, 1, 2)
    story.got(*ks)
    found = verdict(story)
    assert (found.lost_prefix, found.lost_middle, found.lost_postfix) == tuple(
        int(kind == each) for each in ("prefix", "middle", "postfix")
    )


def test_a_repeat_after_a_kill_under_another_identifier_is_two_messages(story: Story) -> None:
    """I6: deduplication failed although the kill would excuse a repeat."""
    story.acked(0)
    story.got(0)
    story.mark("died")
    story.got(0, wire="another")
    assert [violation.invariant for violation in verdict(story).violations] == ["I6"]


def test_more_than_the_window_of_repeats_for_one_kill_is_too_many(story: Story) -> None:
    """I6, G2: 32 a kill and destination."""
    story.acked(*range(40))
    story.got(*range(33))
    story.mark("died")
    story.got(*range(32))
    story.mark("died")
    story.got(*range(40))
    assert [violation.invariant for violation in verdict(story).violations] == ["I6"]


def test_a_failure_reported_twice_without_a_cause_is_once_too_often(story: Story) -> None:
    """F-K11: once."""
    story.acked(0)
    story.told(0, "failed")
    story.told(0, "failed")
    assert [violation.invariant for violation in verdict(story).violations] == ["I6"]


def test_a_receipt_that_came_twice_is_counted_as_the_message_it_is(story: Story) -> None:
    """I6: the report of a delivery travels in a message of its own, which may be repeated after a kill."""
    story.acked(0)
    story.got(0)
    story.told(0, "delivered")
    story.told(0, "delivered")
    assert verdict(story).violations == ()


def test_order_is_asked_only_of_what_was_accepted_in_that_order(story: Story) -> None:
    """I5: a message told "not now" and sent again comes behind those accepted meanwhile."""
    story.sent(0)
    story.sent(1)
    story.ended(0, "fail", "overload")
    story.ended(1, "ok", "accepted")
    story.acked(0)
    story.got(1, 0)
    assert verdict(story).violations == ()


def test_order_holds_for_each_device_alone(story: Story) -> None:
    """I5: another device of the same user got message 1 when the first one was away."""
    story.acked(0, 1)
    story.got(1, device=BOBS_PC)
    story.got(0, 1)
    assert verdict(story).violations == ()


def test_order_lost_over_a_reconnection_is_lost(story: Story) -> None:
    """I5: both unacknowledged messages were sent again in order, so they were accepted in order."""
    for session in (1, 2):
        story.session = session
        for k in (0, 1):
            story.sent(k)
        for k in (0, 1):
            story.ended(k, "info" if session == 1 else "ok", "accepted" if session == 2 else "lost")
    story.got(1, 0)
    assert [violation.invariant for violation in verdict(story).violations] == ["I5"]


def test_an_unanswered_message_may_be_missing(story: Story) -> None:
    story.sent(0)
    story.ended(0, "info", "lost")
    story.sent(1)
    assert verdict(story).violations == ()


def test_what_is_not_the_history_of_a_whole_run_is_said(story: Story, tmp_path: Path) -> None:
    story.acked(0)
    story.mark("ready")
    assert checker.main([str(story.history.path)]) == 2
    path = tmp_path / "other.jsonl"
    path.write_text('{"t": 1, "proc": "x", "op": "guess"}\n')
    assert checker.main([str(path)]) == 2
