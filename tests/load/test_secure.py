"""What signatures cost (issue 4): verifying at most 1 ms of CPU, signing 0.5 ms, relaying a tenth of the message.

The figures are in ``docs/reference/performance.md``; here the tenth percentile counts, because on a machine that does
other things too a call may be charged for the caches others have emptied.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from comity.secure.identity import KeyKind
from tests.load.relay import measure
from tests.load.secure import signing

LIMITS = {"sign": 0.5, "verify": 1.0, "verify, stranger": 1.0}


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_signing_and_verifying_are_cheap(kind: KeyKind) -> None:
    """Also for a signer never seen before, whose certificates have to be read and checked first."""
    costs = list(signing(kind, 200, datetime.now(UTC)))
    assert {found.what for found in costs} == set(LIMITS)
    assert [str(found) for found in costs if found.low > LIMITS[found.what]] == []


@pytest.mark.slow
def test_relaying_a_signed_object_costs_hardly_more(tmp_path: Path) -> None:
    """At most 1.1 times an unsigned one of the same size, 4 KiB; the least of three runs counts, for the same reason."""
    runs = [measure(tmp_path / str(number), 6) for number in range(3)]
    for pair in zip(*runs, strict=True):
        assert min(found.ratio for found in pair) <= 1.1, "\n".join(map(str, pair))
