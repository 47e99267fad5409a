"""``comity publish``, ``watch`` and ``contacts`` against a real server, by SIP and by XMPP, as people type them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from comity.bindings.base import Transport
from comity.cli import main, presence
from comity.cli.messages import SignIn
from comity.client import Seen
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.cpim.presence_state import Availability
from comity.secure import new_identity, sign
from comity.secure.freshness import WINDOW
from tests.paths.kit import ROOT, ServerProcess, Via

PASSWORD = "correct horse"
PATIENCE = 30.0
NUMBERS = itertools.count(1)
PAIRS: list[tuple[Via, Via]] = [
    *(("sip", "xmpp"), ("xmpp", "sip"), ("sip", "sip"), ("xmpp", "xmpp")),
    *(("apex", "xmpp"), ("sip", "apex"), ("apex", "apex")),
]


def comity(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Watchers are told of each change at once, so that a story of ten changes takes no minute."""
    server = ServerProcess(tmp_path_factory.mktemp("server"), "presence_interval = 0.1")
    server.start()
    yield server
    assert server.stop() == 0


class Person:
    """Somebody with an account, a home and a terminal."""

    def __init__(self, server: ServerProcess, name: str) -> None:
        self.address = f"{name}{next(NUMBERS)}@a.test"
        self.home = server.directory.parent / self.address
        self.home.mkdir(mode=0o700)
        self._server = server
        self._password = self.home / "password"
        self._password.write_text(PASSWORD + "\n")
        self._password.chmod(0o600)
        server.run("account", "add", self.address, "--password-stdin", "-c", str(server.config), text=PASSWORD)

    def sign_in(self, via: Via) -> list[str]:
        """The options by which they sign in."""
        transport: Transport = "tls" if via == "sip" else "tcp"
        host, port = self._server.port(via, transport)
        where = ["--via", via, "--server", f"{host}:{port}", "--transport", transport]
        return [*where, "--ca", str(self._server.authority), "--password-file", str(self._password)]

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "COMITY_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        command = [sys.executable, "-m", "comity", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=self._environment, cwd=ROOT
        )

    def must(self, *arguments: str) -> str:
        """The same; it has to be good."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[Running]:
        """A command that goes on until it is told to end."""
        command = [sys.executable, "-m", "comity", *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._environment, cwd=ROOT
        )
        try:
            yield Running(process)
        finally:
            process.kill()
            process.communicate()


class Running:
    """A command under way."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def line(self, *, error: bool = False) -> str:
        """The next line it prints."""
        stream = self._process.stderr if error else self._process.stdout
        assert stream is not None
        if not select.select([stream], [], [], PATIENCE)[0]:
            raise AssertionError("it prints nothing")
        line = stream.readline()
        if not line:
            raise AssertionError(f"it ended: {self._process.communicate()}")
        return line

    def seen(self, state: str) -> dict[str, Any]:
        """The next JSON line that tells this state or standing."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            line: dict[str, Any] = json.loads(self.line())
            if state in (line["state"], line["standing"]):
                return line
        raise AssertionError(f"{state} was not seen")

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(PATIENCE)


@pytest.mark.parametrize(("watchers", "owns"), PAIRS)
def test_asked_allowed_seen_signed_taken_back(server: ServerProcess, watchers: Via, owns: Via) -> None:
    """Issue 5 part 7: subscribe, approve, away with note, signed, gone, refused."""
    alice, bob = Person(server, "alice"), Person(server, "bob")
    bob.must("keys", "new", bob.address, "--no-passphrase")
    certificate = bob.home / "bob.pem"
    certificate.write_text(bob.must("keys", "export", bob.address))
    alice.must("keys", "trust", str(certificate))
    target = f"pres:{bob.address}"
    with alice.running("watch", target, "--as", alice.address, *alice.sign_in(watchers), "--json") as watching:
        assert "watching" in watching.line(error=True)
        if watchers == "apex":  # has no word for "not answered yet": as if there were nobody (T9)
            watching.seen("closed")
        else:
            asked = watching.seen("pending")
            assert (asked["who"], asked["state"], asked["sha256"]) == (target, "unknown", "")
        assert alice.address in requests(bob, "xmpp" if owns == "apex" else owns)
        bob.must("contacts", bob.address, "allow", alice.address, *bob.sign_in("xmpp"))
        if watchers != "apex":
            watching.seen("closed")
        published = ("publish", bob.address, "away", "--note", "Mittag, zurück um 2", *bob.sign_in(owns))
        with bob.running(*published) as publishing:
            assert f"{bob.address} is away (Mittag, zurück um 2) by {owns}" in publishing.line(error=True)
            away = watching.seen("away")
            assert (away["note"], away["verdict"], away["asserted_by"]) == ("Mittag, zurück um 2", "unsigned", "a.test")
            assert publishing.interrupt() == 0
        watching.seen("closed")
        with bob.running("publish", bob.address, "busy", "--sign", *bob.sign_in(owns)) as publishing:
            signed = watching.seen("busy")
            assert (signed["verdict"], signed["signer"]) == ("valid", target)
            assert signed["type"] == "multipart/signed"
            assert publishing.interrupt() == 0
        watching.seen("closed")
        bob.must("contacts", bob.address, "refuse", alice.address, *bob.sign_in("xmpp"))
        watching.seen("refused")


def test_what_is_signed_is_signed_anew_before_it_is_old(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 3923 section 6.9: five minutes; here each fifth of a second."""
    assert WINDOW.total_seconds() > presence.FRESHEN
    alice, bob = Person(server, "alice"), Person(server, "bob")
    bob.must("contacts", bob.address, "allow", alice.address, *bob.sign_in("xmpp"))
    monkeypatch.setattr(presence, "FRESHEN", 0.2)
    signer = new_identity(Address.im(*bob.address.split("@")), when=datetime.now(UTC))

    def sealer(obj: MimeObject) -> MimeObject:
        return sign(obj, signer, when=datetime.now(UTC))

    async def story() -> None:
        who = SignIn("sip", signer.address, PASSWORD, server.port("sip", "tls"), "tls", server.authority)
        saying = presence._publish(who, "busy", note="", lease=None, seconds=None, sealer=sealer, as_json=False)
        publishing = asyncio.ensure_future(saying)
        async with server.client("sip", Address.im(*alice.address.split("@")), "tls", receive=False) as watcher:
            seen: dict[str, Seen] = {}
            async with contextlib.aclosing(watcher.watch(signer.address)) as changes, asyncio.timeout(PATIENCE):
                async for one in changes:
                    if one.availability is Availability.DND:
                        seen[one.sha256] = one
                    if len(seen) == 3:
                        break
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)

    asyncio.run(story())


def requests(person: Person, via: Via) -> list[str]:
    """Who asks, by the command line."""
    asking = json.loads(person.must("contacts", person.address, "requests", *person.sign_in(via), "--json"))
    return [one["contact"].removeprefix("im:") for one in asking]


def test_what_is_left_behind_is_seen_once(server: ServerProcess) -> None:
    """--lease by SIP stays when the command has ended; --once shows the present state and ends."""
    alice, bob = Person(server, "alice"), Person(server, "bob")
    bob.must("contacts", bob.address, "allow", alice.address, *bob.sign_in("xmpp"))
    bob.must("publish", bob.address, "busy", "--note", "gone fishing", "--lease", "600", *bob.sign_in("sip"))
    shown = alice.must("watch", bob.address, "--as", alice.address, "--once", *alice.sign_in("sip"))
    assert '  busy  "gone fishing"  [unsigned, asserted by a.test; sha256 ' in shown
    with alice.running("watch", bob.address, "--as", alice.address, "--count", "1", *alice.sign_in("xmpp")) as watching:
        assert "pending" in watching.line()
        assert "busy" in watching.line()


def test_the_contact_list_by_xmpp(server: ServerProcess) -> None:
    alice, bob = Person(server, "alice"), Person(server, "bob")
    door = alice.sign_in("xmpp")
    alice.must("contacts", alice.address, "add", bob.address, "--name", "Bob", "--group", "Friends", *door)
    (item,) = json.loads(alice.must("contacts", alice.address, "list", "--json", *door))
    assert item == {
        "contact": f"im:{bob.address}",
        "name": "Bob",
        "groups": ["Friends"],
        "sees": False,
        "is_seen": False,
        "asks": True,
    }
    assert requests(bob, "sip") == [alice.address]
    bob.must("contacts", bob.address, "allow", alice.address, *bob.sign_in("xmpp"))
    assert "yes" in alice.must("contacts", alice.address, "list", *door)
    alice.must("contacts", alice.address, "block", bob.address, *door)
    assert json.loads(alice.must("contacts", alice.address, "blocked", "--json", *door)) == [f"im:{bob.address}"]
    alice.must("contacts", alice.address, "unblock", bob.address, *door)
    assert "Nobody is blocked." in alice.must("contacts", alice.address, "blocked", *door)
    alice.must("contacts", alice.address, "remove", bob.address, *door)
    assert "The contact list is empty." in alice.must("contacts", alice.address, "list", *door)


def test_what_sip_cannot_do_is_said_and_where_it_can_be_done(server: ServerProcess) -> None:
    bob = Person(server, "bob")
    done = bob.run("contacts", bob.address, "list", *bob.sign_in("sip"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "Sign in by XMPP" in done.stderr
    done = bob.run("contacts", bob.address, "allow", "x@a.test", *bob.sign_in("sip"))
    assert done.returncode == 2
    assert "XCAP" in done.stderr


@pytest.mark.parametrize("via", ["sip", "xmpp"])
def test_a_wrong_password_is_a_negative_result_in_words(server: ServerProcess, via: Via, tmp_path: Path) -> None:
    bob = Person(server, "bob")
    wrong = tmp_path / "wrong"
    wrong.write_text("nonsense\n")
    wrong.chmod(0o600)
    door = [*bob.sign_in(via)[:-1], str(wrong)]
    for command in (("publish", bob.address, "open"), ("watch", bob.address, "--as", bob.address)):
        done = bob.run(*command, *door)
        assert done.returncode == 1
        assert "The password is wrong, or there is no such account." in done.stderr


def test_who_never_answers_is_not_seen(server: ServerProcess) -> None:
    """Exit code 1: what was waited for did not come."""
    alice, bob = Person(server, "alice"), Person(server, "bob")
    done = alice.run("watch", bob.address, "--as", alice.address, "--timeout", "1", *alice.sign_in("sip"))
    assert done.returncode == 1
    assert "pending: asked, and not answered yet" in done.stdout
    assert "0 of 1 states came." in done.stderr


class TestUse:
    """Exit code 2."""

    def test_a_lease_is_for_sip(self) -> None:
        result = comity("publish", "a@b.test", "open", "--via", "xmpp", "--lease", "60")
        assert result.exit_code == 2
        assert "--lease is for --via sip" in result.output

    def test_a_lease_and_a_time_to_stay_exclude_each_other(self) -> None:
        result = comity("publish", "a@b.test", "open", "--via", "sip", "--lease", "60", "--for", "5")
        assert result.exit_code == 2
        assert "use one of them" in result.output

    @pytest.mark.parametrize("action", ["add", "remove", "allow", "refuse", "block", "unblock"])
    def test_who_is_missing_is_asked_for(self, action: str) -> None:
        result = comity("contacts", "a@b.test", action, "--via", "xmpp")
        assert result.exit_code == 2
        assert f"comity contacts a@b.test {action} CONTACT" in result.output

    @pytest.mark.parametrize("action", ["list", "requests", "blocked"])
    def test_a_list_is_of_nobody_else(self, action: str) -> None:
        result = comity("contacts", "a@b.test", action, "c@b.test", "--via", "xmpp")
        assert result.exit_code == 2

    @pytest.mark.parametrize("command", ["publish", "watch", "contacts"])
    def test_help_teaches_by_examples(self, command: str) -> None:
        result = comity(command, "--help")
        assert result.exit_code == 0
        assert f"comity {command} " in result.output.partition("Examples:")[2]
