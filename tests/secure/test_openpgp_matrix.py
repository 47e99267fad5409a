"""The table of OpenPGP peers is true today: every cell is tried with the real programs (SEC-39; issue 4)."""

from __future__ import annotations

import pytest

from comity.secure import TrustStore, openpgp
from comity.secure.evidence import UnknownAlgorithm
from tests.secure import pgp_matrix
from tests.secure.pgpkit import gpg_home, now

pytestmark = pytest.mark.peer


def test_the_page_is_what_the_programs_do() -> None:
    """Also that each cell without "yes" has its reason, and each reason a cell."""
    found = pgp_matrix.render(pgp_matrix.results())
    page = pgp_matrix.PAGE.read_text(encoding="utf-8")
    assert page == found, "run: PYTHONPATH=src python -m tests.secure.pgp_matrix"


def test_what_must_work_works() -> None:
    """Whatever the page says: these cells may never be anything but "yes"."""
    lines = pgp_matrix.PAGE.read_text(encoding="utf-8").splitlines()
    for name in (
        "Curve25519",
        "P-256",
        "RSA 3072",
        "version 1 with MDC, AES-256",
        "signed inside (RFC 3156 section 6.2)",
    ):
        rows = [line for line in lines if line.startswith(f"| {name} |")]
        assert rows, name
        assert all(row.rstrip(" |").split(" | ")[1:] == ["yes"] * 4 for row in rows), name


@pytest.mark.parametrize("kind", ["brainpoolP256r1", "RSA 1024"])
def test_a_key_that_cannot_be_checked_is_not_called_a_bad_signature(kind: str) -> None:
    with gpg_home() as gpg:
        fingerprint, certificate = pgp_matrix.Peers(gpg).key(kind)
        signature = gpg("--local-user", fingerprint, "--detach-sign", stdin=b"x")
    with pytest.raises(UnknownAlgorithm):
        openpgp.signers_of(b"x", signature, TrustStore(openpgp_pinned=(certificate,)), now())
