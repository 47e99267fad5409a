"""Every exception Comity raises, in one place.

    ComityError
    ├── ProtocolError              octets or calls that break a protocol's rules
    │   ├── LocalProtocolError     we erred: a caller asked a session for something its state forbids
    │   └── RemoteProtocolError    they erred: what a peer sent breaks the grammar or the order
    │       └── MalformedMessage   an object that RFC 3862 (message/cpim) or 3863 (PIDF) does not allow
    ├── AddressError               text that is not an address of the kind asked for
    ├── ConfigError                a configuration mistake: key, problem, cure
    │   └── ConfigErrors           all mistakes of one configuration file together
    ├── StoreError                 the store cannot keep or give back what it was asked to
    │   └── StoreDamaged           the store's file fails its own checks; nothing is overwritten
    ├── SecurityError              a key, certificate or signature operation cannot be carried out
    └── DeliveryError              a next hop could not be reached or answered nonsense
        └── NoRouteError           there is no such next hop, and trying again will not change that

Expected outcomes (refused, unknown, queued, looped) are values: a ``Response`` with a reason. Exceptions
are for broken peers, broken callers and broken disks. Each carries its facts as attributes and builds
its own text from them.
"""

from __future__ import annotations

from collections.abc import Sequence


class ComityError(Exception):
    """Base of everything Comity raises on purpose."""


class ProtocolError(ComityError):
    """Octets or calls that break a protocol's rules."""


class LocalProtocolError(ProtocolError):
    """We erred: the caller asked for something the session's state forbids."""


class RemoteProtocolError(ProtocolError):
    """They erred: the peer's octets break the grammar, a limit or the order of the protocol.

    Args:
        reason: what is wrong, in one sentence without the peer's octets.
        offset: octet offset in the unit being read, or None where it has no meaning.
        hint: the protocol's own name for the error to answer with (a SIP status code such as ``"400"``,
            an XMPP stream condition such as ``"restricted-xml"``), or "" if the reader must choose.
    """

    def __init__(self, reason: str, *, offset: int | None = None, hint: str = "") -> None:
        self.reason = reason
        self.offset = offset
        self.hint = hint
        where = "" if offset is None else f" (at octet {offset})"
        super().__init__(f"{reason}{where}")


class MalformedMessage(RemoteProtocolError):
    """A message/cpim object or presence document that its RFC does not allow; ``offset`` counts octets from its start."""


class AddressError(ComityError):
    """Text that is not an address of the kind asked for.

    Args:
        text: what was given (cut to 128 characters in the message).
        reason: what is wrong with it.
    """

    def __init__(self, text: str, reason: str) -> None:
        self.text = text
        self.reason = reason
        super().__init__(f"{text[:128]!r} is not a usable address: {reason}")


class ConfigError(ComityError):
    """A configuration mistake, said as key, problem and cure.

    Args:
        key: the key as the file names it (``sip.listen[1]``), or what else is at fault.
        problem: one sentence.
        cure: what to do about it, one sentence.
        where: ``file:line`` if it can be found, else "".
    """

    def __init__(self, key: str, problem: str, cure: str = "", *, where: str = "") -> None:
        self.key = key
        self.problem = problem
        self.cure = cure
        self.where = where
        super().__init__((f"{where}: " if where else "") + f"{key}: {problem}" + (f" {cure}" if cure else ""))


class ConfigErrors(ConfigError):
    """All mistakes of one configuration file; its text has one line for each."""

    def __init__(self, path: str, mistakes: Sequence[ConfigError]) -> None:
        self.path = path
        self.mistakes = tuple(mistakes)
        super().__init__(path, "\n".join(str(mistake) for mistake in mistakes))

    def __str__(self) -> str:
        return self.problem


class StoreError(ComityError):
    """The store cannot keep or give back what it was asked to."""


class StoreDamaged(StoreError):
    """The store's file fails its own checks.

    Args:
        path: the file.
        finding: the exact words of the check that failed.
        cure: what the operator should do next.
    """

    def __init__(self, path: str, finding: str, cure: str) -> None:
        self.path = path
        self.finding = finding
        self.cure = cure
        super().__init__(f"{path} is damaged: {finding}. Nothing was changed. {cure}")


class SecurityError(ComityError):
    """A key, certificate or signature operation cannot be carried out."""


class DeliveryError(ComityError):
    """A next hop could not be reached or answered nonsense."""


class NoRouteError(DeliveryError):
    """There is no such domain, it does not offer the service, or only addresses that must not be dialled: final."""
