"""How much memory the process may still take: below a reserve nobody new is let in (F-08).

Place on the path: before step 1, asked by ``Gate``. The bounds are those that end the process or make its allocations
fail: the control group's (systemd's MemoryMax, a container's) and the address space's. Without either there is no bound
to keep away from.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from comity.service.interfaces import Clock

RESERVE = 32 * 1024 * 1024
"""Octets kept for those who are signed in."""
LOOK_SECONDS = 0.1
LOOK_AFTER = 64
"""And after so many were let in: a thousand new TLS connections, 35 MB, fit into a tenth of a second."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


def group_limit(groups: str, root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The smallest memory bound of the control groups in the text of /proc/self/cgroup, None if there is none."""
    found = []
    for line in groups.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            places = [root / "memory" / path.lstrip("/") / "memory.limit_in_bytes"]
        elif not controllers:
            group = Path(path.lstrip("/"))
            places = [root / part / "memory.max" for part in (group, *group.parents)]
        else:
            continue
        for place in places:
            try:
                text = place.read_text("ascii").strip()
            except OSError:
                continue  # not mounted here, or above what this process may see
            if text.isdigit() and int(text) < 1 << 60:
                found.append(int(text))
    return min(found, default=None)


class MemoryRoom:
    """Says whether less than the reserve is left; looks ten times a second, and more often in a rush."""

    def __init__(self, clock: Clock, group: int | None = None) -> None:
        self._clock = clock
        self._group = group
        self._looked = -LOOK_SECONDS
        self._is_short = False
        self._let_in = 0

    @classmethod
    def of_this_process(cls, clock: Clock) -> MemoryRoom:
        """With the bound of the control group this process is in."""
        try:
            groups = Path("/proc/self/cgroup").read_text("ascii")
        except OSError:  # not Linux
            groups = ""
        return cls(clock, group_limit(groups))

    @property
    def is_short(self) -> bool:
        """True if nobody new should be let in."""
        now = self._clock.now()
        if now - self._looked >= LOOK_SECONDS or self._let_in >= LOOK_AFTER:
            self._looked = now
            self._let_in = 0
            self._is_short = self._left() < RESERVE
        self._let_in += not self._is_short
        return self._is_short

    def _left(self) -> float:
        space, _ = resource.getrlimit(resource.RLIMIT_AS)
        if self._group is None and space == resource.RLIM_INFINITY:
            return float("inf")
        try:
            fields = Path("/proc/self/statm").read_text("ascii").split()
        except OSError:  # not Linux
            return float("inf")
        used, resident = (int(field) * _PAGE for field in fields[:2])
        left = [float("inf")]
        if space != resource.RLIM_INFINITY:
            left.append(space - used)
        if self._group is not None:
            left.append(self._group - resident)
        return min(left)
