"""Idle connections of a running server stay within their budget (issue 3, G7); by hand with 2,000 in ``measure``."""

from __future__ import annotations

import pytest

from tests.load.measure import measure, prepare
from tests.paths.kit import ServerProcess

COUNT = 500


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> ServerProcess:
    """A server with accounts, started by each measurement anew."""
    return prepare(tmp_path_factory.mktemp("idle"), COUNT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "most"), [("open", 16_000), ("open-tls", 96_000), ("bound", 60_000), ("bound-tls", 96_000)]
)
def test_idle_connection_stays_within_its_budget(stage: str, most: int, server: ServerProcess) -> None:
    """Before sign-in 16 kB plain and 96 kB under TLS, signed in 60 kB and 96 kB, nothing afterwards, no CPU.

    "Nothing" is G4's 1 MiB for 1,000 repeats, and some kB for what fewer connections than usual leave half used."""
    found = measure(server, stage, COUNT, idle_seconds=1.0)
    assert found.each <= most, found
    assert found.again <= most, found
    assert found.left <= 2**20 / 1000 + 1_000, found
    assert found.cpu <= 0.01, found
