"""``comity keys`` as a person or a script uses it (design.md section 4; SEC-17, SEC-20, T30, T33)."""

from __future__ import annotations

import json
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from comity.cli import main

ALICE = "im:alice@example.org"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def comity(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


_started = datetime.now(UTC)


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """One time for a whole test, so that two calls give the same octets; a new one for each, so that none is stale."""
    monkeypatch.setattr(sys.modules[__name__], "_started", datetime.now(UTC))


def message(when: datetime | None = None) -> bytes:
    stamp = (when or _started).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        f"From: Alice <im:alice@example.org>\r\nTo: Bob <im:bob@example.net>\r\nDateTime: {stamp}\r\n"
        "Subject: hi\r\n\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello\r\n"
    ).encode()


class TestKeys:
    def test_keys_lie_in_comity_home_and_are_the_owners_alone(self, home: Path) -> None:
        comity("keys", "new", ALICE)
        files = [path for path in home.rglob("*") if path.is_file()]
        assert {path.name for path in files} == {"alice@example.org.pem", ".lock"}
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}

    def test_a_key_is_not_replaced_unless_asked(self) -> None:
        first = json.loads(comity("keys", "new", ALICE, "--json").stdout)["fingerprint"]
        again = comity("keys", "new", ALICE)
        assert again.exit_code == 2
        assert "--replace" in again.stderr
        assert json.loads(comity("keys", "show", ALICE, "--json").stdout)["fingerprint"] == first
        assert comity("keys", "new", ALICE, "--replace", "--kind", "ed25519").exit_code == 0
        assert json.loads(comity("keys", "show", ALICE, "--json").stdout)["fingerprint"] != first

    def test_bob_trusts_alice_by_the_authority_of_her_server(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        comity("init", tmp_path / "house", "--domain", "example.org")
        comity("keys", "new", ALICE, "--ca", tmp_path / "house/data/tls")
        signed = comity("sign", "-", stdin=message()).stdout_bytes
        monkeypatch.setenv("COMITY_HOME", str(tmp_path / "bob"))
        before = comity("verify", "--json", "-", stdin=signed)
        assert (before.exit_code, json.loads(before.stdout)["verdict"]) == (1, "untrusted")
        comity("keys", "import", tmp_path / "house/data/tls/ca.pem")
        assert comity("verify", "-", stdin=signed).exit_code == 1
        imported = comity("keys", "import", tmp_path / "house/data/tls/ca.pem", "--trust-anchor")
        assert imported.stdout.startswith("anchors: ")
        assert comity("verify", "-", stdin=signed).exit_code == 0

    def test_bob_pins_alice_and_takes_it_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        comity("keys", "new", ALICE)
        signed = comity("sign", "-", stdin=message()).stdout_bytes
        assert comity("keys", "export", ALICE, "-o", tmp_path / "alice.pem").exit_code == 0
        monkeypatch.setenv("COMITY_HOME", str(tmp_path / "bob"))
        assert comity("verify", "-", stdin=signed).exit_code == 1
        pinned = comity("keys", "trust", tmp_path / "alice.pem")
        assert pinned.exit_code == 0
        assert comity("verify", "-", stdin=signed).exit_code == 0
        fingerprint = json.loads(comity("keys", "list", "--json").stdout)[0]["fingerprint"]
        assert fingerprint in pinned.stdout
        assert comity("keys", "distrust", fingerprint).exit_code == 0
        assert comity("verify", "-", stdin=signed).exit_code == 1
        assert "distrusted" in comity("keys", "list").stdout

    def test_a_private_key_moves_only_under_a_passphrase(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        comity("keys", "new", ALICE)
        (tmp_path / "pass").write_text("open sesame\n")
        assert comity("keys", "export", ALICE, "--private").exit_code == 2
        target = tmp_path / "alice.p12"
        done = comity("keys", "export", ALICE, "--private", "--passphrase-file", tmp_path / "pass", "-o", target)
        assert done.exit_code == 0, done.output
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        monkeypatch.setenv("COMITY_HOME", str(tmp_path / "laptop"))
        assert comity("keys", "import", target, "--passphrase-file", tmp_path / "pass").exit_code == 0
        assert json.loads(comity("keys", "list", "--json").stdout)[0]["is_encrypted"]

    @pytest.mark.parametrize(
        "arguments",
        [
            ["show", "im:nobody@example.org"],
            ["trust", "00" * 32],
            ["export", "x"],
            ["import", "-"],
            ["new", "not an address"],
        ],
    )
    def test_mistakes_are_sentences(self, arguments: list[str]) -> None:
        result = comity("keys", *arguments, stdin=b"nothing")
        assert result.exit_code == 2
        assert result.stderr.startswith("comity: ")

    def test_an_empty_list_says_what_to_do(self) -> None:
        assert "comity keys new" in comity("keys", "list").stdout
        assert comity("keys", "list", "--json").stdout == "[]\n"
