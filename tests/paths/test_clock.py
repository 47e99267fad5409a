"""F-27: the wall clock of a running server jumps, by libfaketime: order, repeats and what is stored are not touched by it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comity.client import text_object
from comity.cpim.operations import MimeObject, Status
from tests.paths.kit import ALICE, BOB, ServerProcess
from tests.paths.test_disk import RATES, receive, run

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
needs_faketime = pytest.mark.skipif(not LIBRARIES, reason="libfaketime is missing (scripts/peers): no clock jumps")
EXPIRY_LOOKS = 20.0
"""Seconds in which the server looks for expired messages at least once (pipeline.EXPIRY_INTERVAL is 15)."""


@needs_faketime
@pytest.mark.slow
@pytest.mark.parametrize("jump", ["+1h", "+400d", "-1d"])
def test_a_jump_of_the_clock_takes_nothing_and_changes_no_order(tmp_path: Path, jump: str) -> None:
    """No mass expiry, a repeat is still a repeat, old before new; the monotonic clock is left alone."""
    rate = tmp_path / "rate"
    rate.write_text("+0\n")
    with ServerProcess(tmp_path, RATES) as server:
        server.tracer = [
            "env",
            f"LD_PRELOAD={LIBRARIES[0]}",
            f"FAKETIME_TIMESTAMP_FILE={rate}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ]
        server.start()

        def message(text: str) -> MimeObject:
            # Written two days ago: what lies ahead of the server's clock is refused, and rightly.
            return text_object(ALICE, BOB, text, when=datetime.now(UTC) - timedelta(days=2))

        async def story() -> None:
            async with server.client("sip", ALICE, "tcp", receive=False) as phone:
                texts = [f"before {n}" for n in range(10)]
                for text in texts:
                    assert (await phone.send(message(text), BOB)).status is Status.INDETERMINANT
                old = message("once")
                first = await phone.send(old, BOB, key="same-call-id-00")
                assert first.status is Status.INDETERMINANT
                (tmp_path / "jumped").write_text(f"{jump}\n")
                (tmp_path / "jumped").replace(rate)
                assert (await phone.send(old, BOB, key="same-call-id-00")).status is Status.INDETERMINANT
                with contextlib.suppress(TimeoutError):  # the server's own clockwork needs real time
                    await asyncio.wait_for(asyncio.Event().wait(), EXPIRY_LOOKS)
                assert await asyncio.to_thread(server.waiting) == 11
                assert (await phone.send(message("after"), BOB)).status is Status.INDETERMINANT
                texts += ["once", "after"]
                assert await receive(server, len(texts)) == texts

        run(story(), 90)
        assert server.stop() == 0


@needs_faketime
def test_the_library_moves_the_clock_of_a_process(tmp_path: Path) -> None:
    """The test above would show nothing if it did not."""
    rate = tmp_path / "rate"
    rate.write_text("+400d\n")
    environment = {**os.environ, "LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME_TIMESTAMP_FILE": str(rate)}
    told = subprocess.run(["date", "+%s"], env=environment, check=True, capture_output=True, text=True)
    real = subprocess.run(["date", "+%s"], check=True, capture_output=True, text=True)
    assert 399 < (int(told.stdout) - int(real.stdout)) / 86_400 < 401
