from __future__ import annotations

from pathlib import Path

import pytest

from comity.net.tls import TlsContexts
from tests.net.kit import Ca


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return Ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def pair(ca: Ca) -> tuple[Path, Path]:
    return ca.issue("chat.example")


@pytest.fixture
def contexts(ca: Ca, pair: tuple[Path, Path]) -> TlsContexts:
    return TlsContexts(*pair, trust=ca.file)
