"""Every example runs and prints what its documentation says."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from comity.client import text_object
from tests.paths.kit import ALICE, BOB, PASSWORD, ServerProcess, Via, take

ROOT = Path(__file__).parent.parent


def test_sign_and_verify_prints_one_good_and_one_bad_verdict() -> None:
    command = [sys.executable, str(ROOT / "examples" / "sign_and_verify.py")]
    environment = {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, env=environment)
    first, second = done.stdout.splitlines()
    assert first.startswith("as sent: valid")
    assert second.startswith("damaged: bad-signature")


def test_beep_echo_shows_the_frames_of_a_session() -> None:
    command = [sys.executable, str(ROOT / "examples" / "beep_echo.py")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env={"PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"},
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("C: 'RPY 0 0 . 0 ")
    assert sum(line.startswith("S: 'RPY 1 ") for line in lines) == 3
    assert lines[-1] == "S closes the connection"


def test_an_apex_application_answers_whatever_protocol_it_is_written_by(tmp_path: Path) -> None:
    """Issue 6 part 6: small enough to be read at a glance."""
    example = ROOT / "examples" / "apex_answering.py"
    assert len(example.read_text().splitlines()) < 60
    with ServerProcess(tmp_path / "server") as server:
        server.start()
        host, port = server.port("apex", "tcp")
        words = [sys.executable, str(example), BOB.uri.removeprefix("im:"), f"{host}:{port}", str(server.authority)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COMITY_PASSWORD": PASSWORD}
        application = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert application.stdout is not None
            assert application.stdout.readline() == "attached as bob@a.test\n"
            for via in ("sip", "apex"):
                assert asyncio.run(asked(server, via)) == f"You wrote 5 characters by {via}."
                assert f"You wrote 5 characters by {via}." in application.stdout.readline()
        finally:
            application.kill()
            application.communicate()


async def asked(server: ServerProcess, via: Via) -> str | None:
    """Write to the application; what it answers."""
    async with server.client(via, ALICE) as alice:
        await alice.send(text_object(ALICE, BOB, "hello"), BOB)
        return (await take(alice))[0].text
