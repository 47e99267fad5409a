"""One server for all stories that do not kill it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.paths.kit import ServerProcess

FAST = "user_messages = 100000\nuser_message_burst = 100000\nuser_octets = 100000000\nudp_requests = 100000\nstored_messages = 100000\nconnections_per_address = 1000"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A running server with generous rates; durability, authentication and sender binding as always."""
    server = ServerProcess(tmp_path_factory.mktemp("server"), FAST)
    server.start()
    yield server
    assert server.stop() == 0
