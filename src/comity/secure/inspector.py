"""A server's look at a signature, by the operator's anchors alone (SEED-37).

Place on the path: beside step 5, where a rule asks for it; off unless configured, put together by ``server.py``, so that
the service imports no cryptography. What a server sees proves nothing to the recipient, whose own program gives the
verdict: no keys are here and no pins. Operations that it lets pass are remembered, since nobody after it looks again.
"""

from __future__ import annotations

import logging
from datetime import datetime

from cryptography import x509

from comity.cpim.operations import MessageOperation, Reason, SubscribeOperation
from comity.cpim.protection import Finding
from comity.errors import SecurityError
from comity.secure.chain import TrustStore
from comity.secure.freshness import ReplayCache, ReplayMemory
from comity.secure.operation import refusal_of, verify_operation
from comity.secure.verifying import verify

log = logging.getLogger(__name__)


class SignatureInspector:
    """Gives the verdict of ``verify`` for a message that passes; see ``service.interfaces.Inspector``.

    Args:
        anchors: authorities the operator trusts for people's certificates.
        replay: remembers the operations accepted; None: in memory, until the process ends.
    """

    def __init__(self, anchors: tuple[x509.Certificate, ...], replay: ReplayMemory | None = None) -> None:
        self._trust = TrustStore(anchors=anchors)
        self._replay: ReplayMemory = ReplayCache() if replay is None else replay

    def inspect(self, operation: MessageOperation, when: datetime) -> Finding:
        """Verify without a key: what is encrypted stays "encrypted", and says nothing."""
        verdict = verify(
            operation.object,
            self._trust,
            now=when,
            expected_from=operation.source,
            expected_to=operation.destination,
        )
        return Finding(verdict.verdict.value, verdict.reason, verdict.refusal)

    def inspect_operation(self, operation: SubscribeOperation, when: datetime) -> Finding:
        """Say whether the proof proves this very operation, for the first time (SEC-34, R-08)."""
        try:
            verdict = verify_operation(operation, self._trust, now=when, replay=self._replay)
        except SecurityError as error:
            log.error("signed operations are refused: %s", error)
            return Finding("not-checked", "Signed operations cannot be remembered here now.", Reason.INTERNAL)
        refusal = refusal_of(verdict, is_required=True)
        return Finding(verdict.verdict.value, verdict.reason, None if refusal is None else refusal[0])
