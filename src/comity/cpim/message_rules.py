"""Who may send messages to somebody: an action of Comity's own in common policy (RFC 4745 section 6.2, ACL-21).

Place on the path: step 5 of a message. An account writes the action beside those of RFC 5025, into the same document and under the
same conditions; other programs ignore it, as that RFC asks of them (section 8):

    <actions><msg-handling xmlns="urn:comity:message-rules:0">block</msg-handling></actions>

As everywhere in common policy the greatest value of the rules that hold counts. Where none of them names the action,
messages are taken: an inbox is open until its owner says otherwise (here, or in an access entry).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from comity.cpim.common_policy import Question, Rule, RuleSet
from comity.errors import MalformedMessage

MESSAGE_RULES: Final = "urn:comity:message-rules:0"
_ACTION: Final = f"{{{MESSAGE_RULES}}}msg-handling"
_SPACE: Final = " \t\r\n"


class MsgHandling(IntEnum):
    """What becomes of a message; the greatest granted counts."""

    BLOCK = 0
    """Refused, as if there were nobody."""
    POLITE_BLOCK = 20
    """Dropped without a word; its sender believes that it waits."""
    ALLOW = 30


_VALUES: Final = {value.name.lower().replace("_", "-"): value for value in MsgHandling}


@dataclass(frozen=True, slots=True)
class MessageRules:
    """The rules of one account that name the action; made by ``of``."""

    rules: tuple[tuple[Rule, MsgHandling], ...]
    """Without what else they grant."""

    @classmethod
    def of(cls, rule_set: RuleSet) -> MessageRules:
        """Pick them out of a rule set; raises MalformedMessage for a value there is not, or the action twice in a rule."""
        found: list[tuple[Rule, MsgHandling]] = []
        for rule in rule_set.rules:
            actions = [element for element in rule.grants if element.name == _ACTION]
            if len(actions) > 1:
                raise MalformedMessage("msg-handling stands twice in one rule")
            for action in actions:
                text = action.text.strip(_SPACE)
                if text not in _VALUES:
                    raise MalformedMessage("msg-handling has a value it cannot have")
                found.append((replace(rule, grants=()), _VALUES[text]))
        return cls(tuple(found))

    def handling(self, question: Question) -> MsgHandling | None:
        """What becomes of a message of the requestor; None if no rule that holds says so."""
        return max((value for rule, value in self.rules if rule.holds(question)), default=None)
