"""``comity send`` and ``listen`` by APEX against a real server, as people type them; presence is in ``test_cli_presence_clients``."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from comity.bindings.base import Transport
from tests.paths.kit import ServerProcess, Via
from tests.test_cli_presence_clients import Person


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    assert server.stop() == 0


@pytest.mark.parametrize(("sends", "listens"), [("apex", "sip"), ("xmpp", "apex"), ("apex", "apex")])
def test_a_signed_message_is_sent_judged_and_said_to_be_delivered(
    server: ServerProcess, sends: Via, listens: Via
) -> None:
    """APEX-14: the same facts in the same shape by every protocol."""
    alice, bob = Person(server, "alice"), Person(server, "bob")
    alice.must("keys", "new", alice.address, "--no-passphrase")
    certificate = alice.home / "alice.pem"
    certificate.write_text(alice.must("keys", "export", alice.address))
    bob.must("keys", "trust", str(certificate))
    with bob.running("listen", bob.address, "--count", "1", "--json", *bob.sign_in(listens)) as listening:
        assert f"listening as im:{bob.address} by {listens}" in listening.line(error=True)
        words = ("--from", alice.address, "--to", bob.address, "--sign", "--json", "zurück um 2")
        sent = json.loads(alice.must("send", *words, *alice.sign_in(sends)))
        heard = json.loads(listening.line())
    assert (heard["text"], heard["verdict"], heard["from"]) == ("zurück um 2", "valid", f"im:{alice.address}")
    assert (heard["sha256"], heard["history"][0]["in"]) == (sent["sha256"], sends)
    assert sent["status"] in ("success", "indeterminant")


def test_what_is_refused_and_who_is_there_already_is_said(server: ServerProcess) -> None:
    alice = Person(server, "alice")
    words = ("--from", alice.address, "--to", "nobody@a.test", "hello")
    done = alice.run("send", *words, *alice.sign_in("apex"))
    assert (done.returncode, done.stdout.splitlines()[1]) == (1, "outcome  failure")
    assert "no-such-user" in done.stderr
    with alice.running("listen", alice.address, *alice.sign_in("apex")) as listening:
        listening.line(error=True)
        done = alice.run("listen", alice.address, *alice.sign_in("apex"))
        assert done.returncode == 1
        assert "Another program receives as this address" in done.stderr
        assert listening.interrupt() == 0


def test_a_port_that_is_not_one_of_apex_is_said(server: ServerProcess) -> None:
    """TLS where none is expected, none where it is, and another protocol: one error, and what to look at."""
    alice = Person(server, "alice")
    words = ("--from", alice.address, "--to", "bob@a.test", "hello", *alice.sign_in("apex"))
    wrong: list[tuple[Via, Transport]] = [("apex", "tls"), ("sip", "tcp"), ("xmpp", "tcp")]
    for protocol, transport in wrong:
        host, number = server.port(protocol, "tcp")
        done = alice.run("send", *words, "--server", f"{host}:{number}", "--transport", transport)
        assert (done.returncode, done.stdout) == (1, "")
        error, hint = done.stderr.splitlines()
        assert error.startswith("comity: ")
        assert hint == "comity: Is it another port, or another --transport (tls, tcp, udp)?"


def test_what_apex_does_not_have_is_said_and_where_it_is(server: ServerProcess) -> None:
    bob = Person(server, "bob")
    for action in (["list"], ["allow", "x@a.test"]):
        done = bob.run("contacts", bob.address, *action, *bob.sign_in("apex"))
        assert (done.returncode, done.stdout) == (2, ""), action
        assert "Sign in by XMPP" in done.stderr
