"""What the service can say about a stored record: its path for ``comity trace``, its end for ``queue drop``.

Place on the path: beside step 7; reads envelopes and outcomes, never the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from comity.admin.requests import Step
from comity.cpim.operations import PASSED_ON
from comity.errors import StoreError
from comity.service.envelope import DROPPED, Envelope, Outcome, pack_outcome, unpack, unpack_outcome
from comity.service.interfaces import Found
from comity.service.routing import HOPS


class EnvelopeRecords:
    """``Records`` (see ``admin.commands``) by the service's own envelopes.

    Args:
        node: this node's name in history entries.
    """

    def __init__(self, node: str) -> None:
        self._node = node

    def steps(self, found: Found) -> Sequence[Step]:
        """The nodes the message passed before, then this one: protocol in and out, time, hash, outcome."""
        try:
            envelope = unpack(found.envelope)
            ended = None if found.outcome is None else unpack_outcome(found.outcome)
        except StoreError as error:
            return [Step(self._node, "", found.lane, _iso(found.accepted), found.fingerprint, f"unreadable: {error}")]
        steps = [
            Step(hop.node, hop.in_protocol, hop.out_protocol, hop.when.isoformat(), found.fingerprint, "passed on")
            for hop in envelope.history
        ]
        steps.append(self._own_step(found, envelope, ended))
        return steps

    def _own_step(self, found: Found, envelope: Envelope, ended: Outcome | None) -> Step:
        out, outcome = "", f"waits in {found.lane}" if found.lane.startswith(HOPS) else "stored"
        if ended is not None:
            out, outcome = ended.out, ended.outcome
            if ended.form == PASSED_ON:  # what became of it then is told by the next server
                return Step(self._node, envelope.in_protocol, out, _iso(found.accepted), found.fingerprint, "passed on")
            detail = ended.form or ": ".join(part for part in (ended.reason, ended.text) if part)
            outcome += f" ({detail})" if detail else ""
        return Step(self._node, envelope.in_protocol, out, _iso(found.accepted), found.fingerprint, outcome)

    def dropped(self, when: datetime) -> bytes:
        """The outcome of a message that an operator ended."""
        return pack_outcome(Outcome("dropped", when, text=DROPPED))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
