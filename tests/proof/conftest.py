"""One server's directory for all runs, made once and copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proof.workload import Size
from tests.proof.world import make_template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an account for everybody who takes part in any run of the tests."""
    return make_template(tmp_path_factory.mktemp("proof"), Size().users())
