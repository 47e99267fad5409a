"""The signing clock that outlives its process: DateTime strictly increases per signer (RFC 3923 section 6.9, SEC-23).

Place on the path: before step 1, at the sender; ``comity send`` asks it for the DateTime of what it signs. Two processes in
one millisecond get two times: the last one given lies in ``COMITY_HOME/clock`` and is read and written under the lock.
"""

from __future__ import annotations

from datetime import UTC, datetime

from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure.freshness import DECREASING_WINDOW, SigningClock
from comity.secure.home import Home, file_name

FOLDER, SUFFIX = "clock", ".txt"


def next_time(home: Home, signer: Address, when: datetime) -> datetime:
    """``when``, moved on as far as it takes to lie after the last time given to ``signer``; durable before it is given.

    A last time that lies further ahead than anybody remembers ours (ten minutes) was given by a clock that was wrong:
    it is forgotten, else everything from now on would be "future".
    """
    name = file_name(signer) + SUFFIX
    with home.locked():
        last = _read(home, name)
        clock = SigningClock(after=None if last is not None and last - when > DECREASING_WINDOW else last)
        given = clock.next(when)
        home.write(FOLDER, name, given.isoformat().encode() + b"\n")
    return given


def _read(home: Home, name: str) -> datetime | None:
    file = home.path / FOLDER / name
    if not file.exists():
        return None
    try:
        return datetime.fromisoformat(home.read(file).decode("ascii").strip()).astimezone(UTC)
    except ValueError as error:
        raise SecurityError(
            f"{file} is damaged: it holds no time. Remove it, and sign nothing for ten minutes."
        ) from error
