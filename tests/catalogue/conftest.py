"""One running server a module: a row that breaks it shows in that module only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.catalogue.harness import Inbox, Target


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with the limits every server has, and its canary; at the end the canary's latency is judged."""
    target = Target(tmp_path_factory.mktemp("target"), people=("carol",))
    yield target
    target.check_canary()
    target.close()


@pytest.fixture(scope="module")
def bob(target: Target) -> Iterator[Inbox]:
    """The victim, by XMPP."""
    inbox = target.inbox()
    yield inbox
    inbox.close()
