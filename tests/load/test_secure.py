"""Verifying costs at most 1 ms of CPU, signing 0.5 ms (issue 4), with a path of three certificates and P-256 throughout.

The figures are in ``docs/reference/performance.md``; here the tenth percentile counts, because on a machine that does
other things too a call may be charged for the caches others have emptied.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from comity.secure.identity import KeyKind
from tests.load.secure import signing

LIMITS = {"sign": 0.5, "verify": 1.0, "verify, stranger": 1.0}


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_signing_and_verifying_are_cheap(kind: KeyKind) -> None:
    """Also for a signer never seen before, whose certificates have to be read and checked first."""
    costs = list(signing(kind, 200, datetime.now(UTC)))
    assert {found.what for found in costs} == set(LIMITS)
    assert [str(found) for found in costs if found.low > LIMITS[found.what]] == []
