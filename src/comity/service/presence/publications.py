"""What devices say of their presentity: publications with leases and entity-tags (RFC 3903 sections 4 to 6).

Place on the path: step 5 of a publish. Takes a ``Statement`` and puts it into its ``Presentity``, or says why not; what is
refused leaves the last good state standing. Whether anything changed for watchers is the notifier's to see.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from comity.cpim.composition import SKEW
from comity.cpim.operations import Reason, Response, failure
from comity.service.interfaces import Clock
from comity.service.presence.interfaces import Published, Statement
from comity.service.presence.presentity import NEVER, Natives, Presentity, Publication


@dataclass(frozen=True, slots=True)
class PublicationLimits:
    """``[limits]`` about publications."""

    publications: int = 20
    """Of one presentity."""
    document: int = 64 * 1024
    """Octets."""
    lease: int = 3600
    """Longest, seconds (N-22)."""


class Publications:
    """Publishes and takes back.

    Args:
        clock: its ``when`` is the time of publication.
        limits: see there.
    """

    def __init__(self, clock: Clock, limits: PublicationLimits | None = None) -> None:
        self._clock = clock
        self._limits = limits or PublicationLimits()

    def publish(
        self, presentity: Presentity, statement: Statement | None, key: str, etag: str, lease: int | None
    ) -> Published | Response:
        """Create, change or renew; see ``PresenceService.publish``."""
        now = self._clock.when()
        self.expire(presentity, now)
        former = find(presentity, key, etag)
        if etag and former is None:
            return failure("", Reason.NO_PUBLICATION, "There is no publication with that entity-tag.")
        if lease is not None and lease < 1:
            return failure("", Reason.SYNTAX, "A publication lives for a second at least.")
        granted = 0 if lease is None else min(lease, self._limits.lease)
        expires = NEVER if lease is None else now + timedelta(seconds=granted)
        if statement is None:
            if former is None:
                return failure("", Reason.NO_PUBLICATION, "There is no publication to renew.")
            former.etag, former.expires = _new_etag(), expires
            return Published(former.etag, granted)
        if refusal := self._refusal(presentity, statement, former):
            return refusal
        if former is not None and _is_outdated(statement, former, now):
            # PRES-12: what is older than what is known changes nothing, but the device lives.
            former.etag, former.expires = _new_etag(), expires
            return Published(former.etag, granted)
        name = former.key if former else key or f"\0{secrets.token_hex(16)}"
        new = Publication(
            name,
            _new_etag(),
            statement.document,
            statement.secured,
            statement.keeps_ids,
            dict(statement.natives),
            now,
            expires,
        )
        presentity.publications[name] = new
        presentity.changed()
        return Published(new.etag, granted)

    def unpublish(self, presentity: Presentity, key: str, etag: str, natives: Natives | None) -> Response | None:
        """Take away; see ``PresenceService.unpublish``."""
        self.expire(presentity, self._clock.when())
        former = find(presentity, key, etag)
        if former is None:
            return failure("", Reason.NO_PUBLICATION, "There is no such publication.")
        del presentity.publications[former.key]
        if natives and presentity.subscriptions:
            presentity.parting.update(natives)
            while len(presentity.parting) > self._limits.publications:  # nobody was told for long
                del presentity.parting[next(iter(presentity.parting))]
        presentity.changed()
        return None

    def expire(self, presentity: Presentity, now: datetime) -> None:
        """Forget what is past its lease."""
        over = [one.key for one in presentity.publications.values() if one.expires <= now]
        for key in over:
            del presentity.publications[key]
            presentity.changed()

    def _refusal(self, presentity: Presentity, statement: Statement, former: Publication | None) -> Response | None:
        document, secured = statement.document, statement.secured
        if document is None and secured is None:
            return failure("", Reason.SYNTAX, "Nothing is said.")
        if document is not None and not document.is_about(presentity.address):
            return failure("", Reason.DENIED, "The document is about somebody else.")
        largest = max(len(document.raw) if document else 0, len(secured.entity) if secured else 0)
        natives = sum(len(octets) for _, octets in statement.natives.values())
        if max(largest, natives) > self._limits.document:
            return failure("", Reason.SIZE, f"Presence takes at most {self._limits.document} octets.")
        if former is None and len(presentity.publications) >= self._limits.publications:
            text = f"At most {self._limits.publications} devices publish for one account."
            return failure("", Reason.QUOTA, text, retry_after=60)
        return None


def find(presentity: Presentity, key: str, etag: str) -> Publication | None:
    """The publication of that key, or of that entity-tag; both have to fit if both are given."""
    if key:
        found = presentity.publications.get(key)
        return found if found is None or not etag or found.etag == etag else None
    if etag:
        return next((one for one in presentity.publications.values() if one.etag == etag), None)
    return None


def _is_outdated(statement: Statement, former: Publication, now: datetime) -> bool:
    if statement.document is None or former.document is None or former.document.date_time is None:
        return False
    # A device whose clock ran far ahead must not be silent until that time has come.
    return former.document.date_time <= now + SKEW and statement.document.is_outdated(former.document.date_time)


def _new_etag() -> str:
    return secrets.token_hex(16)
