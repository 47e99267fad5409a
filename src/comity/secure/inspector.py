"""A server's look at a signature, by the operator's anchors alone (SEED-37).

Place on the path: beside step 5, where a rule asks for it; off unless configured, put together by ``server.py``, so that
the service imports no cryptography. What a server sees proves nothing to the recipient, whose own program gives the
verdict: no keys are here, no pins, no memory of replays.
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509

from comity.cpim.operations import MessageOperation
from comity.cpim.protection import Finding
from comity.secure.chain import TrustStore
from comity.secure.verifying import verify


class SignatureInspector:
    """Gives the verdict of ``verify`` for a message that passes; see ``service.interfaces.Inspector``.

    Args:
        anchors: authorities the operator trusts for people's certificates.
    """

    def __init__(self, anchors: tuple[x509.Certificate, ...]) -> None:
        self._trust = TrustStore(anchors=anchors)

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
