"""What becomes of a received message, by its verdict: delivered, marked or refused (SEED-37, SEC-27).

Place on the path: after ``verifying.verify``, at the recipient; ``comity listen`` asks it for every message. A verdict says
what is known of an object; this table says what a person wants done about it. The rule its readers must keep: no setting
makes a message look better than its verdict. "Deliver" shows it with its verdict as always; what is broken or forged can
be marked at the least.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from comity.cpim.address import Address
from comity.cpim.operations import Reason, Requirement
from comity.cpim.protection import read_requirements
from comity.errors import AddressError, SecurityError
from comity.secure.verdict import Verdict, VerdictKind

FILE = "policy.toml"
"""Its name in ``COMITY_HOME``."""
MAX_OCTETS = 64 * 1024


class Action(StrEnum):
    """What is done with a message."""

    DELIVER = "deliver"
    """Shown, with its verdict."""
    MARK = "mark"
    """Shown as one that should not be relied on."""
    REFUSE = "refuse"
    """Not shown; the sender is told in the words of table T8 where the protocol can."""


DEFAULTS: Mapping[VerdictKind, Action] = {
    VerdictKind.VALID: Action.DELIVER,
    VerdictKind.UNSIGNED: Action.DELIVER,
    VerdictKind.TRANSLATED: Action.DELIVER,
    VerdictKind.VALID_WEAK: Action.MARK,
    VerdictKind.UNTRUSTED: Action.MARK,
    VerdictKind.CHANGED: Action.MARK,
    VerdictKind.STALE: Action.MARK,
    VerdictKind.FUTURE: Action.MARK,
    VerdictKind.NO_FRESHNESS: Action.MARK,
    VerdictKind.HEADERS_UNPROTECTED: Action.MARK,
    VerdictKind.ENVELOPE_MISMATCH: Action.MARK,
    VerdictKind.NOT_CHECKED: Action.MARK,
    VerdictKind.ENCRYPTED: Action.MARK,
    VerdictKind.BAD_SIGNATURE: Action.MARK,
    VerdictKind.SIGNED_BY_OTHER: Action.MARK,
    VerdictKind.NOT_ADDRESSED: Action.MARK,
    VerdictKind.AMBIGUOUS_SENDER: Action.MARK,
    VerdictKind.REPLAYED: Action.REFUSE,
    VerdictKind.MALFORMED: Action.REFUSE,
    VerdictKind.NO_KEY: Action.REFUSE,
    VerdictKind.CANNOT_DECRYPT: Action.REFUSE,
    VerdictKind.DECRYPTED_UNAUTHENTICATED: Action.REFUSE,
}
"""What holds unless said otherwise. Refused is only what has nothing to show, or was shown before: a person is told of what
is broken or forged, and no answer goes out that they did not ask for (RFC 3923 section 7: "MAY return a stanza error")."""

_ONE_ANSWER = frozenset(
    {
        VerdictKind.CANNOT_DECRYPT,
        VerdictKind.DECRYPTED_UNAUTHENTICATED,
        VerdictKind.BAD_SIGNATURE,
        VerdictKind.MALFORMED,
    }
)
"""Of what came encrypted these are one case: whether a changed octet was noticed early or late shows in nothing (M-33)."""

DELIVERABLE = frozenset(
    {
        *(VerdictKind.VALID, VerdictKind.VALID_WEAK, VerdictKind.UNSIGNED, VerdictKind.TRANSLATED),
        *(VerdictKind.HEADERS_UNPROTECTED, VerdictKind.NO_FRESHNESS, VerdictKind.NOT_CHECKED, VerdictKind.ENCRYPTED),
        VerdictKind.UNTRUSTED,
    }
)
"""Verdicts that may be set to ``deliver``: of the others something is known to be wrong."""
_SIGNED = frozenset({VerdictKind.VALID, VerdictKind.VALID_WEAK})
_SENTENCES = {
    Requirement.SIGNED: "It must be signed by its sender, and that is not proved.",
    Requirement.ENCRYPTED: "It must be encrypted, and came readable for everybody on the way.",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done with one message, and why."""

    action: Action
    text: str = ""
    """One sentence for a person; "" for a plain delivery."""
    reason: Reason | None = None
    """What the sender is told of a refusal (T8); None: nothing."""

    @property
    def told(self) -> str:
        """The sentence for the sender; "" where each word more would help an attacker (M-33)."""
        return "" if self.reason is Reason.DECRYPTION else self.text


@dataclass(frozen=True, slots=True)
class Rule:
    """What is wanted of some senders' messages."""

    require: frozenset[Requirement] = frozenset()
    """SIGNED: proved to be the sender's; ENCRYPTED: it came encrypted."""
    verdicts: Mapping[VerdictKind, Action] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """One person's rules. For a sender the rule of the address counts before that of the domain, verdict by verdict, and
    that before the general one; what any of them requires is required."""

    general: Rule = field(default_factory=Rule)
    senders: Mapping[str, Rule] = field(default_factory=dict)
    """By domain, or by the key of an ``im:`` address."""

    def decide(
        self, verdict: Verdict, sender: Address, requirements: Collection[Requirement] = frozenset()
    ) -> Decision:
        """Say what becomes of a message.

        Args:
            verdict: of the object.
            sender: who sent it according to the protocol around it. A rule about the From of the object counts too:
                who claims to be under a rule is under it.
            requirements: what travelled with it (T11): a sender who required a signature did not send it without.
        """
        rules = self._rules(sender, verdict.from_)
        required = frozenset(requirements).union(*(rule.require for rule in rules))
        if Requirement.SIGNED in required and verdict.verdict not in _SIGNED:
            return _refused(verdict, f"{_SENTENCES[Requirement.SIGNED]} {verdict.reason}", Reason.PROTECTION)
        if Requirement.ENCRYPTED in required and not verdict.is_encrypted:
            return _refused(verdict, _SENTENCES[Requirement.ENCRYPTED], Reason.PROTECTION)
        kind = verdict.verdict
        if verdict.is_encrypted and kind in _ONE_ANSWER:
            kind = VerdictKind.CANNOT_DECRYPT
        action = next((rule.verdicts[kind] for rule in rules if kind in rule.verdicts), DEFAULTS[kind])
        if action is Action.REFUSE:
            return _refused(verdict, verdict.reason, Reason.DENIED)
        return Decision(action, verdict.reason if action is Action.MARK else "")

    def _rules(self, sender: Address, from_: str) -> list[Rule]:
        """Those that fit, narrowest first."""
        addresses = [sender.folded()]
        try:
            addresses.append(Address.from_any(from_).folded())
        except AddressError:
            pass  # no From, or one that names nobody: the verdict says so
        keys = [address.key for address in addresses] + [address.domain for address in addresses]
        found = [self.senders[key] for key in dict.fromkeys(keys) if key in self.senders]
        return [*found, self.general]


def _refused(verdict: Verdict, text: str, otherwise: Reason) -> Decision:
    """A refusal, and what the sender hears of it.

    Of what came encrypted one thing is said whatever was wrong inside: whoever changes octets and sends them again must
    not learn from the answer how far they were read (M-33). A repeat is not news to who sent it first (R-01)."""
    if verdict.verdict is VerdictKind.REPLAYED:
        return Decision(Action.REFUSE, text)
    if verdict.is_encrypted:
        return Decision(Action.REFUSE, text, Reason.DECRYPTION)
    return Decision(Action.REFUSE, text, verdict.refusal or otherwise)


def load_policy(home: Path) -> Policy:
    """Read ``policy.toml`` of a home; without the file the defaults hold.

    Raises SecurityError with a sentence for what cannot be read: a rule that is not understood is not left out.
    """
    path = home / FILE
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_OCTETS + 1)
    except FileNotFoundError:
        return Policy()
    except OSError as error:
        raise SecurityError(f"{path} cannot be read: {error.strerror}.") from error
    if len(octets) > MAX_OCTETS:
        raise SecurityError(f"{path} is larger than {MAX_OCTETS} octets.")
    try:
        document = tomllib.loads(octets.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SecurityError(f"{path} is not TOML: {error}.") from error
    except RecursionError as error:
        raise SecurityError(f"{path} is nested too deeply.") from error
    try:
        return read_policy(document)
    except SecurityError as error:
        raise SecurityError(f"{path}: {error}") from error


def read_policy(document: Mapping[str, Any]) -> Policy:
    """The policy of a parsed file: ``require``, ``[verdicts]`` and ``[[rule]]`` with ``from``. Raises SecurityError."""
    _check_keys(document, {"require", "verdicts", "rule"}, "the file")
    tables = document.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SecurityError("write [[rule]] with two brackets for each rule.")
    senders: dict[str, Rule] = {}
    for table in tables:
        _check_keys(table, {"from", "require", "verdicts"}, "a [[rule]]")
        key = _sender_key(table.get("from"))
        if key in senders:
            raise SecurityError(f'there are two rules for "{table["from"]}"; put them into one.')
        senders[key] = _rule(table)
    return Policy(_rule(document), senders)


def _check_keys(table: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise SecurityError(f'"{key}" means nothing in {where}; there is: {", ".join(sorted(known))}.')


def _sender_key(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise SecurityError('a [[rule]] needs from = "a domain or an address".')
    try:
        if "@" in value:
            return Address.parse(value if value.startswith("im:") else f"im:{value}").folded().key
        return Address.parse(f"im:a@{value.lower()}").domain
    except AddressError as error:
        raise SecurityError(f'from = "{value}" is neither a domain nor an address: {error.reason}.') from error


def _rule(table: Mapping[str, Any]) -> Rule:
    words, chosen = table.get("require", []), table.get("verdicts", {})
    try:
        if not isinstance(words, list):
            raise TypeError
        require = read_requirements(words)
        if Requirement.TLS in require:
            raise ValueError
    except (TypeError, ValueError, AttributeError) as error:
        raise SecurityError('require is a list of "signed" and "encrypted"; TLS is the server\'s to see.') from error
    if not isinstance(chosen, dict):
        raise SecurityError("verdicts is a table: write [verdicts] or [rule.verdicts].")
    return Rule(require, dict(_choice(name, action) for name, action in chosen.items()))


def _choice(name: str, action: object) -> tuple[VerdictKind, Action]:
    try:
        kind = VerdictKind(name)
    except ValueError as error:
        raise SecurityError(f'"{name}" is no verdict; there is: {", ".join(sorted(VerdictKind))}.') from error
    if not isinstance(action, str) or action not in list(Action):
        raise SecurityError(f"{name} is followed by one of: {', '.join(Action)}.")
    if action == Action.DELIVER and kind not in DELIVERABLE:
        raise SecurityError(f'{name} cannot be "deliver": something is known to be wrong with it. Write "mark".')
    return kind, Action(action)
