"""What every target shares: how Atheris is started. Targets run by ``scripts/fuzz``, and over their corpus by tests/test_fuzz.py."""

from __future__ import annotations

import sys
from collections.abc import Callable


def run(one_input: Callable[[bytes], None]) -> None:
    """Instrument all that is loaded and fuzz ``one_input`` with libFuzzer's command line."""
    import atheris  # noqa: PLC0415  installed by scripts/fuzz only

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
