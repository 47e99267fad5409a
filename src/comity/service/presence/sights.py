"""What our accounts see of people of other domains: asked for while somebody looks, believed for a time, told like our own.

Place on the path: step 5 of what another domain tells (``PresenceService.heard``), above ``presentity.Sight``, beside
``publications.py``. What is shown to whom is the notifier's, as for our own accounts.

Nothing here is durable: after a start whoever looks has it asked for anew. What is doubted, because the way to its domain broke
or because it was said long ago, is asked for anew and stands meanwhile; where a domain stays out of reach nobody there is
shown as present (``Errands.went_dark``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from comity.cpim.address import Address
from comity.cpim.operations import Response
from comity.cpim.presence_rules import SubHandling
from comity.service.interfaces import Clock
from comity.service.presence.deadlines import Deadlines
from comity.service.presence.errands import Errand, Errands, Look
from comity.service.presence.interfaces import Statement
from comity.service.presence.presentities import Presentities
from comity.service.presence.presentity import Presentity, Sight
from comity.service.presence.publications import PublicationLimits, Publications
from comity.service.presence.states import Act

DAY: Final = 24 * 3600
"""Seconds for which what was heard is believed at most."""
AGAIN: Final = 6 * 3600.0
"""Seconds after which what was heard without an end of its own is asked for anew."""
_WHOLE: Final = "\0"
"""Key of a statement that is all there is; no device is called that."""
CONFIRM: Final = 20.0
"""Seconds that an answer takes at most: what was doubted and is not said again by then holds no more."""


class Sights:
    """Keeps them.

    Args:
        clock: time.
        presentities: where they are.
        errands: what leads to their domains.
        changed: called with one that may be something new.
        limits: of what is said of one person.
    """

    def __init__(
        self,
        clock: Clock,
        presentities: Presentities,
        errands: Errands,
        changed: Callable[[Presentity], None],
        limits: PublicationLimits,
    ) -> None:
        self._clock = clock
        self._presentities = presentities
        self._errands = errands
        self._changed = changed
        self._said = Publications(clock, PublicationLimits(limits.publications, limits.document, DAY))
        self._doubts: Deadlines[Sight] = Deadlines(clock, self._fall_due, lambda sight, at: sight.doubt_at == at)
        self._unconfirmed: Deadlines[Sight] = Deadlines(
            clock, self._not_confirmed, lambda sight, at: sight.confirm_at == at
        )
        errands.carried, errands.went_dark = self._carried, self._went_dark
        presentities.on_unseen = self._unseen

    def stop(self) -> None:
        """Ask for nothing any more."""
        self._doubts.stop()
        self._unconfirmed.stop()

    def look(self, sight: Sight) -> None:
        """Somebody looks, or what he may see was judged: have it told, or ask whether it may be."""
        handling = max((live.granted.sub_handling for live in sight.subscriptions), default=SubHandling.BLOCK)
        if handling is SubHandling.ALLOW and not sight.is_watched:
            sight.is_watched = True
            self._ask(sight)
        elif handling is SubHandling.CONFIRM:
            self._forget(sight)
            if not sight.is_asked:
                sight.is_asked = True
                self._errands.push(Errand(sight.viewer, sight.address, Act.SUBSCRIBE))
        elif handling is SubHandling.POLITE_BLOCK and sight.is_watched:
            self._unwatch(sight)

    def heard(
        self,
        account: Address,
        presentity: Address,
        statement: Statement | None,
        *,
        key: str,
        lease: int | None,
        natives: Mapping[str, tuple[str, bytes]] | None,
    ) -> Response | None:
        """See ``PresenceService.heard``; whose word it is was looked at."""
        sight = self._presentities.find(presentity, account)
        if not isinstance(sight, Sight) or not sight.is_watched:
            return None
        refusal: Response | None = None
        if statement is not None:
            answer = self._said.publish(sight, statement, key or _WHOLE, "", DAY if lease is None else lease)
            refusal = answer if isinstance(answer, Response) else None
        elif key:
            self._said.unpublish(sight, key, "", natives)
        else:
            for known in list(sight.publications):
                self._said.unpublish(sight, known, "", None)
        self._doubt_later(sight, AGAIN if lease is None else None)
        self._changed(sight)
        return refusal

    def doubted(self, domain: str) -> None:
        """See ``PresenceService.doubted``."""
        for sight in self._of(domain):
            self._ask(sight)
        self._errands.knock(domain)

    # --- underneath ------------------------------------------------------------------------------------------------

    def _of(self, domain: str) -> list[Sight]:
        watched = (one for one in self._presentities if isinstance(one, Sight) and one.is_watched)
        return [one for one in watched if one.address.domain == domain]

    def _ask(self, sight: Sight) -> None:
        sight.asked_when = self._clock.when()
        self._errands.push(Errand(sight.viewer, sight.address, Look.WATCH))

    def _doubt_later(self, sight: Sight, seconds: float | None) -> None:
        sight.doubt_at = 0.0 if seconds is None else self._clock.now() + seconds
        if sight.doubt_at:
            self._doubts.push(sight.doubt_at, sight)

    def _fall_due(self, sights: list[Sight]) -> None:
        for sight in sights:
            sight.doubt_at = 0.0
            if sight.is_watched:
                self._ask(sight)
                self._doubt_later(sight, AGAIN)

    def _carried(self, errand: Errand) -> None:
        sight = self._presentities.find(errand.other, errand.account) if errand.what is Look.WATCH else None
        if isinstance(sight, Sight) and sight.publications:
            sight.confirm_at = self._clock.now() + CONFIRM
            self._unconfirmed.push(sight.confirm_at, sight)

    def _not_confirmed(self, sights: list[Sight]) -> None:
        """COMPAT ejabberd 23: says nothing to a probe about somebody who is away (RFC 6121 section 4.3.2 has a SHOULD there)."""
        for sight in sights:
            sight.confirm_at = 0.0
            old = [k for k, one in sight.publications.items() if sight.asked_when and one.published < sight.asked_when]
            for key in old:
                del sight.publications[key]
            if old:
                sight.changed()
                self._changed(sight)

    def _went_dark(self, domain: str) -> None:
        for sight in self._of(domain):
            self._ask(sight)  # when it can be reached again
            if sight.publications:
                sight.publications.clear()
                sight.changed()
                self._changed(sight)

    def _unseen(self, sight: Sight) -> None:
        if sight.is_watched:
            self._unwatch(sight)

    def _unwatch(self, sight: Sight) -> None:
        self._forget(sight)
        place = self._errands.place(sight.address.domain)
        if place is not None:
            abroad, hop = place
            abroad.unwatch(sight.viewer, sight.address, hop)

    def _forget(self, sight: Sight) -> None:
        """What was said holds no more, and nobody was asked to say it."""
        sight.is_watched, sight.doubt_at = False, 0.0
        if sight.publications:
            sight.publications.clear()
            sight.changed()

    def is_wanted(self, errand: Errand) -> bool:
        """Whether somebody still looks."""
        sight = self._presentities.find(errand.other, errand.account)
        return isinstance(sight, Sight) and sight.is_watched

    def refused(self, errand: Errand) -> None:
        """The other domain will not tell: nothing is known of that person until it is asked again."""
        sight = self._presentities.find(errand.other, errand.account)
        if isinstance(sight, Sight) and sight.is_watched:
            self._doubt_later(sight, AGAIN)
            sight.publications.clear()
            sight.changed()
            self._changed(sight)

    def moment(self, sight: Sight) -> None:
        """A statement's own time is over, or begins."""
        now = self._clock.when()
        self._said.expire(sight, now)
        composed = sight.composed
        if composed is not None and composed.next_change is not None and composed.next_change <= now:
            sight.changed()
        self._changed(sight)
