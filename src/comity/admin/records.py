"""What the service can say about a stored record: its path for ``comity trace``, its end for ``queue drop``.

Place on the path: beside step 7; reads envelopes and outcomes, never the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from comity.admin.requests import Step
from comity.cpim.delivered import PASSED_ON, in_words
from comity.cpim.history import HistoryEntry
from comity.errors import StoreError
from comity.service.envelope import DROPPED, Envelope, Outcome, history_of, pack_outcome, unpack, unpack_outcome
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
        return [
            *(_step(hop, found.fingerprint) for hop in history_of(envelope)),
            self._own_step(found, envelope, ended),
        ]

    def _own_step(self, found: Found, envelope: Envelope, ended: Outcome | None) -> Step:
        out, out_tls, form = "", None, ""
        outcome = f"waits in {found.lane}" if found.lane.startswith(HOPS) else "stored"
        if ended is not None:
            out, out_tls, outcome = ended.out, ended.out_tls, ended.outcome
            if ended.form == PASSED_ON:  # what became of it then is told by the next server
                outcome = "passed on"
            else:
                form = ended.form
                detail = in_words(form, ended.at) or ": ".join(part for part in (ended.reason, ended.text) if part)
                outcome += f" ({detail})" if detail else ""
        return Step(
            self._node,
            envelope.in_protocol,
            out,
            _iso(found.accepted),
            found.fingerprint,
            outcome,
            envelope.is_protected,
            out_tls,
            form,
            envelope.note,
            envelope.asserted_by,
        )

    def dropped(self, when: datetime) -> bytes:
        """The outcome of a message that an operator ended."""
        return pack_outcome(Outcome("dropped", when, text=DROPPED))


def _step(hop: HistoryEntry, fingerprint: str) -> Step:
    """What a node before us wrote of itself."""
    way = hop.in_protocol, hop.out_protocol, hop.when.isoformat()
    return Step(hop.node, *way, fingerprint, "passed on", hop.in_tls, hop.out_tls, note=hop.note)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
