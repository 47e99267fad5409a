"""cpim/message_rules.py: Comity's own action in common policy (ACL-21, ACL-8, RFC 4745 section 6.2)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from comity.cpim.common_policy import Question, Requestor, RuleSet
from comity.cpim.message_rules import MESSAGE_RULES, MessageRules, MsgHandling
from comity.cpim.presence_rules import PresenceRules, SubHandling
from comity.errors import MalformedMessage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALICE, MALLORY = Requestor.of("im:alice@a.test"), Requestor.of("im:mallory@a.test")


def rules(*each: tuple[str, str]) -> bytes:
    """Rules of (identity, actions)."""
    texts = [
        f'<rule id="r{number}"><conditions>{who}</conditions><actions>{actions}</actions></rule>'
        for number, (who, actions) in enumerate(each)
    ]
    return f'<ruleset xmlns="urn:ietf:params:xml:ns:common-policy">{"".join(texts)}</ruleset>'.encode()


def action(value: str) -> str:
    return f'<msg-handling xmlns="{MESSAGE_RULES}">{value}</msg-handling>'


def handling(octets: bytes, requestor: Requestor) -> MsgHandling | None:
    return MessageRules.of(RuleSet.parse(octets)).handling(Question(requestor, NOW))


BY_MALLORY = '<identity><one id="im:mallory@a.test"/></identity>'
BY_ANYONE = "<identity><many/></identity>"


def test_who_is_named_by_no_rule_is_not_spoken_of() -> None:
    """Then an access entry may, else messages are taken: ``service/presence/inbox.py``."""
    octets = rules((BY_MALLORY, action("block")))
    assert handling(octets, MALLORY) is MsgHandling.BLOCK
    assert handling(octets, ALICE) is None
    assert handling(rules(), ALICE) is None


def test_the_greatest_value_of_the_rules_that_hold_counts() -> None:
    """ACL-8: so a list of friends is "block" for everybody and "allow" for some."""
    octets = rules(
        (BY_ANYONE, action("block")), ('<identity><one id="im:alice@a.test"/></identity>', action(" allow\n"))
    )
    assert handling(octets, ALICE) is MsgHandling.ALLOW
    assert handling(octets, MALLORY) is MsgHandling.BLOCK
    assert handling(rules((BY_ANYONE, action("polite-block")), (BY_MALLORY, action("block"))), MALLORY) is (
        MsgHandling.POLITE_BLOCK
    )


@pytest.mark.parametrize("actions", [action(""), action("perhaps"), action("block") * 2])
def test_a_value_there_is_not_is_refused(actions: str) -> None:
    with pytest.raises(MalformedMessage, match="msg-handling"):
        MessageRules.of(RuleSet.parse(rules((BY_ANYONE, actions))))


def test_rules_of_presence_and_of_messages_do_not_meet() -> None:
    """RFC 5025 section 8: other namespaces are other people's permissions."""
    octets = rules((BY_ANYONE, action("block")))
    assert PresenceRules.parse(octets).permissions(Question(ALICE, NOW)).sub_handling is SubHandling.BLOCK
    allowed = rules((BY_ANYONE, '<sub-handling xmlns="urn:ietf:params:xml:ns:pres-rules">allow</sub-handling>'))
    assert MessageRules.of(RuleSet.parse(allowed)).rules == ()
