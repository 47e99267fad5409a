"""Signed subscribe and unsubscribe: secure/operation.py (SEC-34, R-08, T19)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from comity.cpim.address import Address
from comity.cpim.entity import cpim_view, signed_part
from comity.cpim.message import CpimMessage, check_profile
from comity.cpim.operations import MimeObject, Reason, SubscribeOperation
from comity.errors import SecurityError
from comity.secure import ReplayCache, Verdict, VerdictKind, new_identity, sign
from comity.secure.inspector import SignatureInspector
from comity.secure.operation import (
    MOST_DURATION,
    NAMESPACE,
    SignedOperation,
    read_operation,
    refusal_of,
    sign_operation,
    verify_operation,
)
from comity.secure.replay import StoredReplayCache
from tests.secure.kit import NOW, ca, cpim, identity, trust

ALICE, BOB, EVE = (Address.parse(f"pres:{name}") for name in ("alice@a.test", "bob@b.test", "eve@e.test"))
ASKED = SubscribeOperation(ALICE, BOB, "sub-4711", "t1", 3600)
SECOND = timedelta(seconds=1)


def proved(operation: SubscribeOperation = ASKED, when: datetime = NOW, message_id: str = "op1") -> SubscribeOperation:
    return replace(operation, proof=sign_operation(operation, identity(), when=when, message_id=message_id))


def check(operation: SubscribeOperation, replay: ReplayCache | None = None, now: datetime = NOW) -> Verdict:
    return verify_operation(operation, trust(), now=now, replay=ReplayCache() if replay is None else replay)


def signed_by_hand(*headers: tuple[str, str], message_id: str = "op1", to: str = "pres:bob@b.test") -> MimeObject:
    made = CpimMessage.build(
        from_="pres:alice@a.test",
        to=to,
        date_time=NOW,
        message_id=message_id,
        headers=[("NS", f"op <{NAMESPACE}>"), *headers],
        content=b"x",
    )
    return sign(MimeObject.of("message/cpim", made.raw), identity(), when=NOW)


FIELDS = (("op.Operation", "subscribe"), ("op.SubscriptID", "sub-4711"), ("op.Duration", "3600"))


class TestObject:
    def test_it_is_a_message_cpim_that_says_what_is_asked_for(self) -> None:
        proof = proved().proof
        assert proof is not None
        view = cpim_view(proof)
        assert view is not None
        check_profile(view)
        assert view.from_ is not None
        assert (view.from_.uri, [to.uri for to in view.to]) == (ALICE.uri, [BOB.uri])
        assert read_operation(view) == SignedOperation("subscribe", ALICE, BOB, "sub-4711", 3600, "op1")
        assert b"asks to see the presence of pres:bob@b.test for 3600 seconds" in view.content

    def test_a_program_that_knows_no_operations_must_refuse_it(self) -> None:
        """RFC 3862 section 4.7: not taken for a message somebody wrote."""
        view = cpim_view(signed_part(proved().proof or cpim()))
        assert view is not None
        assert {name for _, name in view.unknown_requirements} == {"Operation", "SubscriptID", "Duration"}

    def test_the_end_of_a_subscription_is_another_word(self) -> None:
        view = cpim_view(proved(replace(ASKED, duration=0)).proof or cpim())
        assert view is not None
        assert read_operation(view).name == "unsubscribe"

    @pytest.mark.parametrize(
        "changed",
        [
            replace(ASKED, duration=-1),
            replace(ASKED, duration=MOST_DURATION + 1),
            replace(ASKED, subscript_id=""),
            replace(ASKED, subscript_id="x" * 257),
        ],
    )
    def test_what_cannot_be_expressed_is_not_signed(self, changed: SubscribeOperation) -> None:
        with pytest.raises(SecurityError):
            proved(changed)


class TestVerdict:
    def test_the_very_operation_is_valid(self) -> None:
        verdict = check(proved())
        assert (verdict.verdict, verdict.signer) == (VerdictKind.VALID, "pres:alice@a.test")

    def test_schemes_do_not_make_another_operation(self) -> None:
        """A binding that names people by im: means the same watcher."""
        arrived = replace(proved(), watcher=ALICE.with_scheme("im"), target=BOB.with_scheme("im"))
        assert check(arrived).is_valid

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            (replace(ASKED, duration=7200), "for 3600 seconds, not 7200"),
            (replace(ASKED, duration=0), "for 3600 seconds, not 0"),
            (replace(ASKED, subscript_id="sub-1"), "another SubscriptID"),
        ],
    )
    def test_an_altered_operation_is_another_one(self, changed: SubscribeOperation, said: str) -> None:
        """SEC-34: altered duration → failure."""
        verdict = check(replace(changed, proof=proved().proof))
        assert verdict.verdict is VerdictKind.ENVELOPE_MISMATCH
        assert said in verdict.reason
        assert refusal_of(verdict, is_required=False) == (Reason.DENIED, verdict.reason)

    def test_another_watcher_or_presentity_is_noticed(self) -> None:
        proof = proved().proof
        assert check(replace(ASKED, watcher=EVE, proof=proof)).verdict is VerdictKind.ENVELOPE_MISMATCH
        assert check(replace(ASKED, target=EVE, proof=proof)).verdict is VerdictKind.NOT_ADDRESSED

    def test_somebody_elses_signature_is_no_proof(self) -> None:
        eve = new_identity(EVE.with_scheme("im"), when=NOW, ca=ca())
        forged = replace(ASKED, proof=sign_operation(ASKED, eve, when=NOW, message_id="op1"))
        assert check(forged).verdict is VerdictKind.SIGNED_BY_OTHER

    def test_an_unsigned_proof_is_not_the_same_as_none(self) -> None:
        made = signed_part(proved().proof or cpim())
        verdict = check(replace(ASKED, proof=made))
        assert verdict.verdict is VerdictKind.MALFORMED
        assert refusal_of(verdict, is_required=False) is not None

    def test_a_changed_octet_breaks_it(self) -> None:
        proof = proved().proof
        assert proof is not None
        broken = MimeObject(proof.header_block, proof.octets.replace(b"op.Duration: 3600", b"op.Duration: 7200"))
        verdict = check(replace(ASKED, duration=7200, proof=broken))
        assert verdict.verdict is VerdictKind.BAD_SIGNATURE
        assert refusal_of(verdict, is_required=False) == (Reason.SIGNATURE, verdict.reason)

    @pytest.mark.parametrize(
        "headers",
        [
            (),
            FIELDS[:2],
            (*FIELDS, ("op.Duration", "3600")),
            (*FIELDS, ("op.More", "x")),
            (FIELDS[0], FIELDS[1], ("op.Duration", "1e3")),
            (FIELDS[0], FIELDS[1], ("op.Duration", "99999999999")),
            (FIELDS[0], FIELDS[1], ("op.Duration", "0")),
            (("op.Operation", "notify"), *FIELDS[1:]),
            (FIELDS[0], ("op.SubscriptID", "x" * 300), FIELDS[2]),
        ],
    )
    def test_what_is_signed_and_no_operation_is_malformed(self, headers: tuple[tuple[str, str], ...]) -> None:
        """A signed message of hers is not a subscription, whoever attaches it."""
        verdict = check(replace(ASKED, proof=signed_by_hand(*headers)))
        assert verdict.verdict is VerdictKind.MALFORMED
        assert refusal_of(verdict, is_required=False) == (Reason.SYNTAX, verdict.reason)

    def test_it_needs_a_message_id(self) -> None:
        assert check(replace(ASKED, proof=signed_by_hand(*FIELDS, message_id=""))).verdict is VerdictKind.MALFORMED


class TestReplay:
    def test_once_by_watcher_and_message_id(self) -> None:
        """R-08."""
        replay = ReplayCache()
        arrived = proved()
        assert check(arrived, replay).is_valid
        assert check(arrived, replay, NOW + SECOND).verdict is VerdictKind.REPLAYED

    def test_of_two_at_the_same_time_one_counts(self) -> None:
        """R-08: both asked before either was remembered."""
        gate = threading.Barrier(2, timeout=30)

        class Together(ReplayCache):
            def check(self, signer: str, identifier: str, stamp: datetime | None, now: datetime) -> VerdictKind | None:
                found = super().check(signer, identifier, stamp, now)
                gate.wait()
                return found

        replay, arrived = Together(), proved()
        with ThreadPoolExecutor(2) as pool:
            verdicts = [each.result() for each in [pool.submit(check, arrived, replay) for _ in range(2)]]
        assert {verdict.verdict for verdict in verdicts} == {VerdictKind.VALID, VerdictKind.REPLAYED}

    def test_an_older_operation_does_not_come_after_a_later_one(self) -> None:
        """She unsubscribed; the subscribe of before, held back on the way, changes nothing any more."""
        replay = ReplayCache()
        before = proved(message_id="op1")
        after = proved(replace(ASKED, duration=0), NOW + SECOND, "op2")
        assert check(after, replay, NOW + SECOND).is_valid
        verdict = check(before, replay, NOW + 2 * SECOND)
        assert verdict.verdict is VerdictKind.STALE
        assert refusal_of(verdict, is_required=False) == (Reason.TIMESTAMP, verdict.reason)

    def test_operations_about_others_do_not_wait_for_each_other(self) -> None:
        replay = ReplayCache()
        carol = Address.parse("pres:carol@b.test")
        assert check(proved(when=NOW + SECOND, message_id="op2"), replay, NOW + SECOND).is_valid
        assert check(proved(replace(ASKED, target=carol), NOW, "op1"), replay, NOW + SECOND).is_valid

    def test_an_hour_later_it_is_old(self) -> None:
        """R-03: past the window freshness alone refuses it."""
        late = check(proved(), ReplayCache(), NOW + timedelta(hours=1))
        assert late.verdict is VerdictKind.STALE

    def test_what_is_refused_is_not_remembered(self) -> None:
        replay = ReplayCache()
        arrived = proved()
        assert not check(replace(arrived, duration=7200), replay).is_valid
        assert len(replay) == 0
        assert check(arrived, replay).is_valid


class TestDemand:
    @pytest.mark.parametrize(("is_required", "reason"), [(False, None), (True, Reason.PROTECTION)])
    def test_without_a_proof_the_policy_decides(self, is_required: bool, reason: Reason | None) -> None:
        """Absent: hop rules only, unless the presentity's policy asks for one."""
        verdict = check(ASKED)
        assert verdict.verdict is VerdictKind.UNSIGNED
        refusal = refusal_of(verdict, is_required=is_required)
        assert (refusal and refusal[0]) == reason

    def test_a_good_one_passes_both_ways(self) -> None:
        for is_required in (False, True):
            assert refusal_of(check(proved()), is_required=is_required) is None


class TestInspector:
    """A server's look, by the operator's authorities."""

    def test_it_lets_an_operation_pass_once(self) -> None:
        inspector = SignatureInspector((ca().certificate,))
        assert inspector.inspect_operation(proved(), NOW).verdict == "valid"
        again = inspector.inspect_operation(proved(), NOW)
        assert (again.verdict, again.reason) == ("replayed", Reason.DENIED)

    def test_what_cannot_be_remembered_does_not_pass(self, tmp_path: Path) -> None:
        """R-03: and the sender hears nothing of our files."""
        memory = StoredReplayCache("operations", tmp_path)
        memory.close()
        finding = SignatureInspector((ca().certificate,), memory).inspect_operation(proved(), NOW)
        assert (finding.verdict, finding.reason) == ("not-checked", Reason.INTERNAL)
        assert str(tmp_path) not in finding.text
