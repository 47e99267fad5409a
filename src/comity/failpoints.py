"""Named places where a test can kill the process, as if the power went (reliability.md section 3.2).

Off unless ``COMITY_FAILPOINT=name[:nth]`` is set when the process starts: the nth time (first by default) the
named place is passed, the process gets SIGKILL. No clean-up runs, nothing is flushed. When off, a failpoint
costs one test of a global. ``tests/proof/points.py`` lists every name with what is promised there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from comity.errors import ConfigError


def _armed(setting: str) -> tuple[str, int]:
    """Split ``name[:nth]``; ("", 0) when it is empty."""
    name, colon, nth = setting.partition(":")
    if colon and not (nth.isascii() and nth.isdigit() and int(nth) > 0):
        raise ConfigError("COMITY_FAILPOINT", f"{setting!r} does not end in a count.", "Write name or name:nth.")
    return name, int(nth) if colon else int(bool(name))


_name, _left = _armed(os.environ.get("COMITY_FAILPOINT", ""))
_is_on = bool(_name)


def failpoint(name: str, last_act: Callable[[], object] | None = None) -> None:
    """Kill this process if ``name`` is the armed failpoint and its count is reached, after ``last_act``."""
    if _is_on:
        _pass(name, last_act)


def _pass(name: str, last_act: Callable[[], object] | None) -> None:
    global _left  # noqa: PLW0603 - one armed failpoint per process is the design
    if name == _name:
        _left -= 1
        if _left == 0:
            if last_act is not None:
                last_act()
            os.kill(os.getpid(), signal.SIGKILL)
