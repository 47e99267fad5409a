"""Which watcher was last told what, for partial notifications (RFC 5263 section 4.4). Pure.

Place on the path: step 8 of a notify, for ``notifier.py``. A difference is made only against what the watcher said 200 to; after
anything else (the first, a refresh, an answer that failed or never came) all of it is said. The version goes up by one with each.
"""

from __future__ import annotations

from dataclasses import dataclass

from comity.bindings.sip.notifications import write_tail
from comity.cpim.operations import MimeObject
from comity.cpim.pidf_diff import PIDF_DIFF_TYPE, diff, difference, full
from comity.service.presence.interfaces import Content


@dataclass(slots=True)
class Partial:
    """One watcher's place."""

    version: int = 0
    """Of the last one sent. After a restart it goes on from the time, which is higher."""
    known: Content | None = None
    """What the watcher has; None if that is not sure."""
    sent: Content | None = None
    """What is on its way."""
    is_wanted: bool = True
    """The watcher's last SUBSCRIBE still asked for it; the count outlives that (section 4.5)."""

    def tail(self, content: Content) -> bytes:
        """Content headers, empty line and body of the next NOTIFY."""
        document = content.document
        assert document is not None, "watcher information is never partial"
        self.version = (self.version + 1) & 0xFFFFFFFF
        operations = None
        if self.known is not None and self.known.document is not None:
            operations = _operations(self.known, content)
        self.known, self.sent = None, content
        if operations is None:
            octets = full(document, self.version)
        else:
            octets = diff(document.entity, self.version, operations)
        return write_tail(MimeObject.of(f"{PIDF_DIFF_TYPE};charset=utf-8", octets))

    def answered(self, is_taken: bool) -> None:
        """The last one was answered, by 2xx or not."""
        self.known = self.sent if is_taken else None
        self.sent = None

    def unsure(self) -> None:
        """What the watcher has is not known: next comes all of it."""
        self.known = self.sent = None


def _operations(old: Content, new: Content) -> list[bytes] | None:
    """Made once for all who were told the same."""
    assert old.document is not None
    assert new.document is not None
    key = "pidf-diff", old.object.fingerprint
    if key not in new.cache:
        new.cache[key] = difference(old.document, new.document)
    found: list[bytes] | None = new.cache[key]
    return found
