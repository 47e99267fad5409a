"""Presence entries that APEX applications published: kept with the account, published, closed when their time is over.

Place on the path: steps 5 to 7 of a publish. An entry is what was said once for a time of its own, not what a connection says while
it stands: RFC 3343 section 4 wants it in persistent storage. So it is durable before it is answered and a restart publishes it
again, like presence put by XCAP (RFC 4827); what is past its availableUntil then is closed, so no "open" outlives what was said.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from comity.bindings.apex.presence import Entry, document_to_entry, entry_to_document
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Reason, Response, failure
from comity.cpim.presence import PIDF_TYPE, PresenceDocument
from comity.errors import LocalProtocolError, MalformedMessage, StoreError
from comity.service.interfaces import Clock, Origin, Timer
from comity.service.presence.interfaces import PresenceService, Statement

log = logging.getLogger(__name__)

#: Name of the document that keeps an entry.
DOCUMENT: Final = "apex-presence/index"
_KEY: Final = "entry"
_MILLISECOND: Final = timedelta(milliseconds=1)
_LONGEST: Final = 24 * 3600.0
"""Seconds until an end is looked at again, however far away it is."""


class Entries:
    """Keeps them.

    Args:
        presence: publishes.
        clock: says when their time is over.
    """

    def __init__(self, presence: PresenceService, clock: Clock) -> None:
        self._presence = presence
        self._clock = clock
        self._timers: dict[str, Timer] = {}
        """By account, until the next tuple of its entry is past."""
        self._work: set[asyncio.Future[None]] = set()

    async def restore(self) -> None:
        """Publish what is kept. Raises StoreError."""
        for account in await self._presence.documents.holders(DOCUMENT):
            try:
                entry = await self.get(account)
                if entry is not None:
                    self._publish(account, entry)
            except (StoreError, MalformedMessage, LocalProtocolError) as error:
                # One bad row must not keep the others closed (F-POISON).
                log.error("the presence entry of %s cannot be published again: %s", account, error)

    async def get(self, account: Address) -> Entry | None:
        """The entry of an account; None if nobody published one. Raises StoreError."""
        stored = await self._presence.documents.get(account, DOCUMENT)
        if stored is None:
            return None
        try:
            return document_to_entry(PresenceDocument.parse(stored.octets))
        except MalformedMessage as error:  # the next publish takes its place
            log.error("the stored presence entry of %s cannot be read and counts as none: %s", account, error)
            return None

    async def put(self, account: Address, entry: Entry, former: Entry | None) -> Response | None:
        """Keep and publish in the place of ``former``; None when that is done and durable. Raises StoreError."""
        try:
            document = entry_to_document(account, entry, self._clock.when())
        except MalformedMessage as error:
            return failure("", Reason.SIZE if error.hint == "size" else Reason.SYNTAX, str(error))
        except LocalProtocolError:
            return failure("", Reason.SYNTAX, "The entry holds a character that cannot be carried.")
        documents, origin = self._presence.documents, _origin(account)
        answer = await documents.put(account, DOCUMENT, PIDF_TYPE, document.raw, origin)
        if isinstance(answer, Response):
            return answer
        refusal = self._publish(account, entry)
        if refusal is not None:  # too many devices: what stood before goes on standing
            if former is None:
                await documents.delete(account, DOCUMENT, origin)
            else:
                raw = entry_to_document(account, former, self._clock.when()).raw
                await documents.put(account, DOCUMENT, PIDF_TYPE, raw, origin)
                self._publish(account, former)
        return refusal

    async def sign(self, account: Address, document: PresenceDocument | None, secured: MimeObject) -> Response | None:
        """Publish what the account itself signed or sealed in the place of its entry; None when that is done.

        It lives as long as a device's word does, and is not kept. Raises StoreError."""
        answer = self._presence.publish(
            account.with_scheme("pres"), Statement(document, secured), _origin(account), key=_KEY, lease=3600
        )
        if isinstance(answer, Response):
            return answer
        self._stop(account)
        entry = await self.get(account)
        if entry is not None:  # what it said before must not come back with a restart
            cleared = Entry(max(self._now(), entry.last_update + _MILLISECOND))
            raw = entry_to_document(account, cleared, self._clock.when()).raw
            kept = await self._presence.documents.put(account, DOCUMENT, PIDF_TYPE, raw, _origin(account))
            return kept if isinstance(kept, Response) else None
        return None

    def next_update(self, entry: Entry | None, seen: datetime | None) -> datetime:
        """The lastUpdate of an entry that changes now: later than any that was told."""
        times = [self._now()]
        times += [one + _MILLISECOND for one in (seen, entry.last_update if entry else None) if one is not None]
        return max(times)

    def _now(self) -> datetime:
        now = self._clock.when()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def _publish(self, account: Address, entry: Entry) -> Response | None:
        self._stop(account)
        now, entity = self._clock.when(), account.with_scheme("pres")
        if entry.is_over(now):
            # Who is nowhere looks like who blocks politely (ACL-11). That there was no publication is no harm.
            self._presence.unpublish(entity, _origin(account), key=_KEY)
            return None
        statement = Statement(entry_to_document(account, entry, now), keeps_ids=True)
        answer = self._presence.publish(entity, statement, _origin(account), key=_KEY)
        if isinstance(answer, Response):
            log.warning("the presence entry of %s is not published: %s", account, answer.text)
            return answer
        end = entry.next_end(now)
        if end is not None:
            # Not past before it is past: a timer may be early by what a float leaves out.
            delay = min((end - now).total_seconds() + 0.001, _LONGEST)
            self._timers[account.key] = self._clock.call_later(delay, partial(self._fall_due, account, entry))
        return None

    def _fall_due(self, account: Address, entry: Entry) -> None:
        work = asyncio.ensure_future(self._close(account, entry))
        self._work.add(work)
        work.add_done_callback(self._work.discard)

    async def _close(self, account: Address, entry: Entry) -> None:
        """Something of it is over: publish it anew, unless the account was removed since, and its name given to somebody else."""
        timer = self._timers.get(account.key)
        try:
            kept = await self.get(account)
        except StoreError as error:
            log.error("a presence entry is closed as it was last known: %s", error)
            kept = entry
        if kept is not None and self._timers.get(account.key) is timer:
            self._publish(account, kept)

    def _stop(self, account: Address) -> None:
        timer = self._timers.pop(account.key, None)
        if timer is not None:
            timer.cancel()


def _origin(account: Address) -> Origin:
    """The account itself: who may publish for it was asked before."""
    return Origin(account, "apex", "", is_protected=True)
