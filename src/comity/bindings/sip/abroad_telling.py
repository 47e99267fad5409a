"""What NOTIFY requests from another domain come to for our accounts: granted, told, not known any more, refused.

Place on the path: step 5 of a notify from a peer server, for ``abroad.py``. The first active NOTIFY of a dialog is the presentity's
yes; it is durable before anything it says is shown (GW-14). Each word goes to the one account whose dialog it came in (T18).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING, Final

from comity.bindings.sip.abroad_pairs import Pair
from comity.bindings.sip.subscriber import State
from comity.errors import StoreError
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import PresenceService

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding

log = logging.getLogger(__name__)

GRACE: Final = 64
"""Seconds after its end that what was told may still be believed: a refresh may be on its way."""


class Telling:
    """Puts it to the presence service.

    Args:
        binding: whose clock and tasks.
        granted: called with a pair whose grant is durable and that nobody looks at.
    """

    def __init__(self, binding: SipBinding, granted: Callable[[Pair], None]) -> None:
        self._binding = binding
        self._granted = granted
        self._presence: PresenceService | None = None

    def start(self, presence: PresenceService) -> None:
        """Called once, before any listener opens."""
        self._presence = presence

    @property
    def presence(self) -> PresenceService:
        """What is told."""
        assert self._presence is not None, "start() comes first"
        return self._presence

    def _now(self) -> float:
        return self._binding.service.clock.now()

    def notified(self, pair: Pair) -> None:
        pair.told_at = self._now()
        if not pair.is_wanted:
            return
        if pair.is_granted:
            self.tell(pair)
        elif not pair.is_telling:
            pair.is_telling = True
            self._binding.run(self._grant(pair))

    async def _grant(self, pair: Pair) -> None:
        """The first active NOTIFY: the account may see the presentity. What it sees is told after that is durable."""
        try:
            refusal = await self.presence.answered(pair.account, pair.presentity, True, self._origin(pair))
        except StoreError as error:
            log.error("that %s may be seen could not be stored: %s", pair.presentity, error)
            return
        finally:
            pair.is_telling = False
        is_active = pair.machine.state is State.ACTIVE
        if refusal is not None or pair.is_ending or not is_active:
            return
        pair.is_granted, pair.is_asked = True, False
        self.tell(pair)
        if not pair.is_watched:
            self._granted(pair)

    def tell(self, pair: Pair) -> None:
        """What is known now; None (an empty NOTIFY): that nothing is (GW-14)."""
        until = pair.machine.lasts_until
        lease = None if until is None else max(1, ceil(until - self._now())) + GRACE
        origin = self._origin(pair)
        refusal = self.presence.heard(pair.account, pair.presentity, pair.statement, origin, lease=lease)
        if refusal is not None:
            log.info("presence of %s was not taken: %s", pair.presentity, refusal.text)

    def unknown(self, pair: Pair) -> None:
        """Nothing is known of the presentity any more."""
        was_known, pair.is_granted, pair.statement = pair.is_granted, False, None
        if was_known and pair.is_watched:
            self.presence.heard(pair.account, pair.presentity, None, self._origin(pair))

    def _origin(self, pair: Pair) -> Origin:
        domains = frozenset({pair.presentity.domain})
        host = pair.targets[0].host if pair.targets else ""
        return Origin(pair.presentity, self._binding.name, host, pair.hop.is_protected, domains=domains)

    def doubted(self, domain: str) -> None:
        """Its server was gone, and may have forgotten who watches: a refresh tells (481), long before its time."""
        if self._presence is not None:
            self._presence.doubted(domain)

    def refused(self, pair: Pair) -> None:
        """The presentity does not want to be seen by the account (GW-13)."""
        self._binding.run(self._refuse(pair))

    async def _refuse(self, pair: Pair) -> None:
        try:
            await self.presence.answered(pair.account, pair.presentity, False, self._origin(pair))
        except StoreError as error:  # the next SUBSCRIBE is answered likewise
            log.error("that %s is not to be seen could not be stored: %s", pair.presentity, error)
