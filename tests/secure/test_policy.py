"""What becomes of a message by its verdict: secure/policy.py (SEED-37, SEC-27, G-04)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import Reason, Requirement
from comity.errors import SecurityError
from comity.secure import Verdict, VerdictKind
from comity.secure.policy import (
    DEFAULTS,
    DELIVERABLE,
    FILE,
    MAX_OCTETS,
    Action,
    Policy,
    load_policy,
    read_policy,
)
from comity.secure.verdict import Layer, LayerKind

ALICE, MALLORY = Address.parse("im:alice@a.test"), Address.parse("im:mallory@m.test")
SIGNED, ENCRYPTED = frozenset({Requirement.SIGNED}), frozenset({Requirement.ENCRYPTED})


def verdict(kind: VerdictKind, from_: str = "im:alice@a.test", *, is_encrypted: bool = False) -> Verdict:
    layers = (Layer(LayerKind.ENCRYPTED, "encrypted"),) if is_encrypted else ()
    return Verdict(kind, "", from_, "00", "Because.", layers=layers)


class TestDefaults:
    def test_every_verdict_has_one(self) -> None:
        assert set(DEFAULTS) == set(VerdictKind)

    def test_what_is_known_to_be_wrong_is_never_plainly_delivered(self) -> None:
        assert {kind for kind, action in DEFAULTS.items() if action is Action.DELIVER} <= DELIVERABLE
        broken = {VerdictKind.BAD_SIGNATURE, VerdictKind.SIGNED_BY_OTHER, VerdictKind.CANNOT_DECRYPT}
        broken |= {VerdictKind.REPLAYED, VerdictKind.MALFORMED, VerdictKind.CHANGED, VerdictKind.STALE}
        broken |= {VerdictKind.DECRYPTED_UNAUTHENTICATED, VerdictKind.ENVELOPE_MISMATCH}
        assert not broken & DELIVERABLE

    @pytest.mark.parametrize("kind", VerdictKind)
    def test_a_decision_says_why_and_a_refusal_what_to_tell(self, kind: VerdictKind) -> None:
        decision = Policy().decide(verdict(kind), ALICE)
        assert decision.action is DEFAULTS[kind]
        assert bool(decision.text) is (decision.action is not Action.DELIVER)
        is_told = decision.action is Action.REFUSE and kind is not VerdictKind.REPLAYED
        assert (decision.reason is not None) is is_told

    @pytest.mark.parametrize(
        ("kind", "reason"),
        [
            (VerdictKind.BAD_SIGNATURE, Reason.SIGNATURE),
            (VerdictKind.SIGNED_BY_OTHER, Reason.SIGNATURE),
            (VerdictKind.STALE, Reason.TIMESTAMP),
            (VerdictKind.CANNOT_DECRYPT, Reason.DECRYPTION),
            (VerdictKind.MALFORMED, Reason.SYNTAX),
            (VerdictKind.NOT_ADDRESSED, Reason.DENIED),
        ],
    )
    def test_the_reason_is_that_of_table_t8(self, kind: VerdictKind, reason: Reason) -> None:
        refusing = read_policy({"verdicts": {kind.value: "refuse"}})
        assert refusing.decide(verdict(kind), ALICE).reason is reason


@pytest.mark.parametrize("kind", VerdictKind)
def test_of_what_came_encrypted_one_thing_is_said_whatever_was_wrong_inside(kind: VerdictKind) -> None:
    """M-33: the answer is no oracle, however a person set it. R-01: to a repeat nothing is said."""
    refusing = read_policy({"verdicts": {each.value: "refuse" for each in VerdictKind}})
    decision = refusing.decide(verdict(kind, is_encrypted=True), ALICE)
    if kind is VerdictKind.REPLAYED:
        assert decision.reason is None
    else:
        assert (decision.reason, decision.told) == (Reason.DECRYPTION, "")


@pytest.mark.parametrize("action", Action)
def test_a_change_that_is_noticed_late_is_answered_like_one_that_is_noticed_early(action: Action) -> None:
    """Delivered here and refused there would tell an attacker how far his octets were read (M-28, M-33)."""
    policy = (
        read_policy({"verdicts": {"bad-signature": "mark", "cannot-decrypt": action.value}})
        if (action is not Action.DELIVER)
        else Policy()
    )
    early, late = VerdictKind.CANNOT_DECRYPT, VerdictKind.BAD_SIGNATURE
    decisions = [policy.decide(verdict(kind, is_encrypted=True), ALICE) for kind in (early, late)]
    assert decisions[0] == decisions[1]
    assert policy.decide(verdict(late), ALICE).action is Action.MARK


class TestRules:
    POLICY = read_policy(
        {
            "verdicts": {"unsigned": "mark", "untrusted": "refuse"},
            "rule": [
                {"from": "A.test", "require": ["signed"], "verdicts": {"stale": "refuse"}},
                {"from": "alice@a.test", "verdicts": {"untrusted": "mark", "stale": "mark"}},
                {"from": "bank.test", "require": ["encrypted", "signed"]},
            ],
        }
    )

    def test_the_narrowest_rule_counts_first(self) -> None:
        decide = self.POLICY.decide
        assert decide(verdict(VerdictKind.UNSIGNED), MALLORY).action is Action.REFUSE  # its From is under a rule
        stranger = verdict(VerdictKind.UNSIGNED, "im:mallory@m.test")
        assert decide(stranger, MALLORY).action is Action.MARK
        assert decide(replace(stranger, verdict=VerdictKind.UNTRUSTED), MALLORY).action is Action.REFUSE
        assert decide(verdict(VerdictKind.VALID), ALICE).action is Action.DELIVER

    def test_must_be_signed_means_proved_to_be_the_senders(self) -> None:
        """G-04: an unsigned message in such a conversation is refused, never shown as signed."""
        for kind in set(VerdictKind) - {VerdictKind.VALID, VerdictKind.VALID_WEAK}:
            decision = self.POLICY.decide(verdict(kind), ALICE)
            assert decision.action is Action.REFUSE, kind
            assert "must be signed" in decision.text
        assert self.POLICY.decide(verdict(VerdictKind.VALID_WEAK), ALICE).action is Action.MARK

    def test_who_claims_to_be_under_a_rule_is_under_it(self) -> None:
        """A From of the bank's, sent by somebody else."""
        forged = verdict(VerdictKind.ENVELOPE_MISMATCH, "im:clerk@bank.test", is_encrypted=True)
        assert self.POLICY.decide(forged, MALLORY).action is Action.REFUSE

    def test_must_be_encrypted(self) -> None:
        clerk = Address.parse("im:clerk@bank.test")
        bare = verdict(VerdictKind.VALID, clerk.uri)
        assert self.POLICY.decide(bare, clerk).reason is Reason.PROTECTION
        sealed = verdict(VerdictKind.VALID, clerk.uri, is_encrypted=True)
        assert self.POLICY.decide(sealed, clerk).action is Action.DELIVER

    def test_what_travelled_with_the_message_is_held_against_it(self) -> None:
        """T11 at its end: the sender required it, somebody on the way took it off."""
        stripped = verdict(VerdictKind.UNSIGNED)
        assert Policy().decide(stripped, ALICE).action is Action.DELIVER
        assert Policy().decide(stripped, ALICE, SIGNED).action is Action.REFUSE
        assert Policy().decide(verdict(VerdictKind.VALID), ALICE, ENCRYPTED).action is Action.REFUSE


class TestFile:
    def test_without_a_file_the_defaults_hold(self, tmp_path: Path) -> None:
        assert load_policy(tmp_path) == Policy()

    def test_a_file_is_read(self, tmp_path: Path) -> None:
        (tmp_path / FILE).write_text(
            'require = ["signed"]\n[verdicts]\nstale = "refuse"\n'
            '[[rule]]\nfrom = "im:bob@b.test"\nrequire = ["encrypted"]\n[rule.verdicts]\nunsigned = "refuse"\n',
            "utf-8",
        )
        policy = load_policy(tmp_path)
        assert policy.general.require == SIGNED
        assert policy.general.verdicts == {VerdictKind.STALE: Action.REFUSE}
        assert policy.senders["im:bob@b.test"].require == ENCRYPTED

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("x = ", "is not TOML"),
            ("\xff", "is not TOML"),
            ('requires = ["signed"]', '"requires" means nothing'),
            ('require = ["tls"]', "TLS is the server's"),
            ('require = "signed"', "is a list"),
            ("require = [1]", "is a list"),
            ('[verdicts]\nfine = "deliver"', "is no verdict"),
            ('[verdicts]\nstale = "drop"', "followed by one of"),
            ("[verdicts]\nstale = true", "followed by one of"),
            ('[verdicts]\nbad-signature = "deliver"', "cannot be"),
            ('verdicts = "none"', "is a table"),
            ('[rule]\nfrom = "a.test"', "two brackets"),
            ('[[rule]]\nrequire = ["signed"]', "needs from"),
            ('[[rule]]\nfrom = "a b"', "neither a domain nor an address"),
            ('[[rule]]\nfrom = "a.test"\n[[rule]]\nfrom = "A.test"', "two rules"),
            ('[[rule]]\nfrom = "a.test"\ncolour = "red"', '"colour" means nothing'),
            ("x = " + "[" * 20_000, "nested too deeply"),
            ("#" * MAX_OCTETS + "#", "larger than"),
        ],
    )
    def test_what_is_not_understood_is_said_and_not_left_out(self, tmp_path: Path, text: str, words: str) -> None:
        (tmp_path / FILE).write_bytes(text.encode("latin-1"))
        with pytest.raises(SecurityError, match=r"policy\.toml") as caught:
            load_policy(tmp_path)
        assert words in str(caught.value)

    def test_a_file_that_cannot_be_read_is_not_no_file(self, tmp_path: Path) -> None:
        (tmp_path / FILE).mkdir()
        with pytest.raises(SecurityError, match="cannot be read"):
            load_policy(tmp_path)
