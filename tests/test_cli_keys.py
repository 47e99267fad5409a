"""``comity keys`` as a person or a script uses it (design.md section 4; SEC-17, SEC-20, T30, T33)."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization

from comity.cli import main
from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure import KeyStore, new_identity
from comity.secure.home import Home
from comity.secure.openpgp_packets import SECRET_KEY, SECRET_SUBKEY, read_packets
from comity.secure.own_ca import OwnCa
from comity.secure.passphrase import pem_blocks
from tests.terminal import Conversation

ALICE, BOB = "im:alice@example.org", "im:bob@example.net"
SOURCE = Path(__file__).parent.parent / "src"


def openssl(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=True)


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


def test_without_a_terminal_nobody_is_asked_for_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script neither hangs nor shows what it is given."""
    monkeypatch.delenv("COMITY_PASSWORD", raising=False)
    result = comity("send", "--from", ALICE, "--to", BOB, "--via", "sip", "hello", stdin="secret\n")
    assert result.exit_code == 2
    assert "--password-file or COMITY_PASSWORD" in result.stderr


def test_who_listens_with_a_wrong_passphrase_is_told_before_anything_is_refused(tmp_path: Path) -> None:
    """Else what waits encrypted at the server would go back to its sender for a slip of the hand."""
    (tmp_path / "pass").write_text("open sesame\n")
    (tmp_path / "wrong").write_text("open sesam\n")
    comity("keys", "new", ALICE, "--passphrase-file", tmp_path / "pass")
    nowhere = ("--server", "127.0.0.1:1", "--password-file", tmp_path / "pass", "--timeout", "5")
    result = comity("listen", ALICE, "--via", "sip", *nowhere, "--passphrase-file", tmp_path / "wrong")
    assert (result.exit_code, "passphrase is wrong" in result.stderr) == (2, True)
    result = comity("listen", ALICE, "--via", "sip", *nowhere, "--passphrase-file", tmp_path / "pass")
    assert (result.exit_code, "no connection" in result.stderr) == (1, True)


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


class TestPassphrases:
    """T30: private keys are under a passphrase, or somebody said or was told that they are not."""

    def test_a_person_is_asked_twice_and_later_once(self, home: Path, tmp_path: Path) -> None:
        asked = Conversation("keys", "new", ALICE, home=home)
        asked.answer("New passphrase", "open sesame")
        asked.answer("Repeat", "open sesame")
        assert asked.end() == 0
        assert "open sesame" not in asked.said
        (tmp_path / "m").write_bytes(message())
        asked = Conversation("sign", tmp_path / "m", "-o", tmp_path / "s", home=home)
        asked.answer("Passphrase for the private key", "open sesami")
        asked.answer("Passphrase for the private key", "open sesame")
        assert asked.end() == 0
        assert "passphrase is wrong" in asked.said
        assert comity("verify", tmp_path / "s").exit_code == 0

    def test_an_empty_answer_makes_no_open_key(self, home: Path) -> None:
        asked = Conversation("keys", "new", ALICE, home=home)
        asked.answer("New passphrase", "")
        asked.answer("Repeat", "")
        assert asked.end() == 2
        assert "--no-passphrase" in asked.said
        assert not (home / "keys").exists()

    def test_a_script_is_told_that_its_key_lies_open(self) -> None:
        result = comity("keys", "new", ALICE)
        assert result.exit_code == 0
        assert "not under a passphrase" in result.stderr
        assert comity("keys", "new", BOB, "--no-passphrase").stderr == ""

    def test_the_environment_gives_it_and_no_argument_does(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """B-02: arguments are seen by every user of the machine."""
        monkeypatch.setenv("COMITY_PASSPHRASE", "open sesame")
        assert comity("keys", "new", ALICE).exit_code == 0
        assert comity("sign", "-", stdin=message()).exit_code == 0
        monkeypatch.delenv("COMITY_PASSPHRASE")
        result = comity("sign", "-", stdin=message())
        assert result.exit_code == 2
        assert "under a passphrase" in result.stderr
        for path in (("keys", "new"), ("sign",), ("decrypt",), ("send",), ("listen",), ("verify",)):
            options = comity(*path, "--help").stdout
            assert "--passphrase-file" in options
            assert "--passphrase " not in options

    def test_no_secret_octets_lie_in_a_file(self, home: Path, tmp_path: Path) -> None:
        """T30: neither key is found on the disk, whatever the encoding."""
        (tmp_path / "pass").write_text("open sesame\n")
        for kind in ("ed25519", "openpgp"):
            assert comity("keys", "new", ALICE, "--kind", kind, "--passphrase-file", tmp_path / "pass").exit_code == 0
        store = KeyStore(home)
        identity, pgp = (
            store.load(Address.parse(ALICE), b"open sesame"),
            store.pgp.load(Address.parse(ALICE), b"open sesame"),
        )
        raw = (serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
        assert identity.encryption is not None
        secrets = [identity.key.private_bytes(*raw), identity.encryption.key.private_bytes(*raw)]
        private = [packet for packet in read_packets(pgp.secret) if packet.tag in (SECRET_KEY, SECRET_SUBKEY)]
        secrets += [packet.body[-34:-2] for packet in private]  # the number, before its checksum
        assert len(secrets) >= 4
        found = b"".join(
            base64.b64decode(b"".join(block.split(b"\n")[1:-2])) + block
            for file in home.rglob("*.pem")
            for _, block in pem_blocks(file.read_bytes())
        )
        assert len(found) > 2000
        assert not [secret for secret in secrets if secret in found or secret[::-1] in found]

    @pytest.mark.parametrize("kind", ["p256", "ed25519", "openpgp"])
    def test_it_is_changed_taken_off_and_put_on(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "one").write_text("one\n")
        (tmp_path / "two").write_text("two\n")
        comity("keys", "new", ALICE, "--kind", kind, "--passphrase-file", tmp_path / "one")
        change = ["keys", "passphrase", ALICE]
        wrong = comity(*change, "--passphrase-file", tmp_path / "two", "--new-passphrase-file", tmp_path / "one")
        assert wrong.exit_code == 2
        assert "passphrase is wrong" in wrong.stderr
        right = comity(*change, "--passphrase-file", tmp_path / "one", "--new-passphrase-file", tmp_path / "two")
        assert right.exit_code == 0, right.output
        sign = ["sign", "-", *(["--openpgp"] if kind == "openpgp" else [])]
        assert comity(*sign, "--passphrase-file", tmp_path / "one", stdin=message()).exit_code == 2
        assert comity(*sign, "--passphrase-file", tmp_path / "two", stdin=message()).exit_code == 0
        assert comity(*change, "--passphrase-file", tmp_path / "two", "--no-passphrase").exit_code == 0
        assert comity(*sign, stdin=message()).exit_code == 0
        assert comity(*change).exit_code == 2

    @pytest.mark.parametrize("kind", ["p256", "openpgp"])
    def test_that_of_a_revoked_key_is_changed_too(self, home: Path, tmp_path: Path, kind: str) -> None:
        """It still opens old messages: a passphrase that somebody saw must not."""
        (tmp_path / "one").write_text("one\n")
        (tmp_path / "two").write_text("two\n")
        comity("keys", "new", ALICE, "--kind", kind, "--passphrase-file", tmp_path / "one")
        revoke = ("keys", "revoke", ALICE, "--passphrase-file", tmp_path / "one")
        assert comity(*revoke, "-o", tmp_path / "nowhere" / "x").exit_code == 2
        assert comity(*revoke, "-o", tmp_path / "x").exit_code == 0, "what was not written can be done again"
        change = ("keys", "passphrase", ALICE, "--passphrase-file", tmp_path / "one")
        assert comity(*change, "--new-passphrase-file", tmp_path / "two").exit_code == 0
        store = KeyStore(home)
        folder = store.own if kind == "p256" else store.pgp
        assert folder.decrypting(Address.parse(ALICE), b"two")
        with pytest.raises(SecurityError):
            folder.decrypting(Address.parse(ALICE), b"one")

    def test_two_words_against_each_other_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "pass").write_text("x\n")
        result = comity("keys", "new", ALICE, "--passphrase-file", tmp_path / "pass", "--no-passphrase")
        assert result.exit_code == 2


class TestAuthorities:
    def test_an_own_authority_is_made_once_and_believed_by_who_imports_it(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "pass").write_text("open sesame\n")
        secret = ("--passphrase-file", tmp_path / "pass")
        first = comity("keys", "new", ALICE, "--own-ca", *secret)
        assert first.exit_code == 0, first.output
        assert comity("keys", "new", BOB, "--own-ca", *secret).exit_code == 0
        own = [entry for entry in json.loads(comity("keys", "list", "--json").stdout) if entry["shelf"] == "anchors"]
        assert len(own) == 1
        assert own[0]["fingerprint"] in first.stdout
        assert b"ENCRYPTED" in (home / "ca" / "own.pem").read_bytes()
        (tmp_path / "new").write_text("open simsim\n")
        changed = comity("keys", "passphrase", ALICE, *secret, "--new-passphrase-file", tmp_path / "new")
        assert (changed.exit_code, changed.stderr) == (0, "")
        assert OwnCa(Home(home)).open(b"open simsim"), "a passphrase that somebody saw protects nothing any more"
        again = comity("keys", "passphrase", BOB, *secret, "--new-passphrase-file", tmp_path / "pass")
        assert (again.exit_code, "own authority is under another" in again.stderr) == (0, True)
        secret = ("--passphrase-file", tmp_path / "new")
        signed = comity("sign", "-", *secret, stdin=message()).stdout_bytes
        comity("keys", "export", own[0]["fingerprint"], "-o", tmp_path / "ca.pem")
        monkeypatch.setenv("COMITY_HOME", str(tmp_path / "bob"))
        assert comity("verify", "-", stdin=signed).exit_code == 1
        assert comity("keys", "import", tmp_path / "ca.pem", "--trust-anchor").exit_code == 0
        assert comity("verify", "-", stdin=signed).exit_code == 0

    def test_the_passphrase_of_the_authority_is_needed_to_issue(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / name).write_text(f"{name}\n")
        comity("keys", "new", ALICE, "--own-ca", "--passphrase-file", tmp_path / "one")
        result = comity("keys", "new", BOB, "--own-ca", "--passphrase-file", tmp_path / "two")
        assert result.exit_code == 2
        assert "your authority" in result.stderr

    def test_openssl_as_another_authority_issues_for_a_request(self, tmp_path: Path) -> None:
        """SEC-17: all four names are in the request, and in what comes back."""
        request, issued = tmp_path / "alice.csr", tmp_path / "alice.pem"
        (tmp_path / "pass").write_text("open sesame\n")
        made = comity("keys", "new", ALICE, "--request", request, "--passphrase-file", tmp_path / "pass")
        assert made.exit_code == 0, made.output
        assert "keys import" in made.stdout
        assert "waits for its certificate" in comity("sign", "-", stdin=message()).stderr
        assert "waits for its certificate" in comity("keys", "list").stdout
        again = comity("keys", "new", ALICE, "--request", tmp_path / "other.csr", "--no-passphrase")
        assert (again.exit_code, (tmp_path / "other.csr").exists()) == (2, False)  # else what is issued opens nothing
        assert "--replace" in again.stderr
        text = openssl("req", "-in", request, "-noout", "-text", "-verify").stdout.decode()
        assert all(f"URI:{scheme}:alice@example.org" in text for scheme in ("im", "pres", "sip"))
        assert "1.3.6.1.5.5.7.8.5" in text or "XmppAddr" in text or "othername" in text
        openssl(
            *(
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                "/CN=Other CA",
            ),
            *("-keyout", tmp_path / "ca.key", "-out", tmp_path / "ca.pem", "-days", "30"),
        )
        openssl(
            *("x509", "-req", "-in", request, "-CA", tmp_path / "ca.pem", "-CAkey", tmp_path / "ca.key", "-days", "20"),
            *("-copy_extensions", "copyall", "-out", issued),
        )
        joined = comity("keys", "import", issued)
        assert joined.stdout.startswith("own: "), joined.output
        comity("keys", "import", tmp_path / "ca.pem", "--trust-anchor")
        letter = message(datetime.now(UTC))  # openssl's certificate begins now: nothing older is under it (M-21)
        signed = comity("sign", "-", "--passphrase-file", tmp_path / "pass", stdin=letter)
        assert signed.exit_code == 0, signed.output
        assert comity("verify", "-", stdin=signed.stdout_bytes).exit_code == 0

    def test_a_certificate_with_other_names_is_not_joined(self, tmp_path: Path) -> None:
        comity("keys", "new", ALICE, "--request", tmp_path / "alice.csr")
        openssl(
            *(
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                "/CN=Other CA",
            ),
            *("-keyout", tmp_path / "ca.key", "-out", tmp_path / "ca.pem", "-days", "30"),
        )
        (tmp_path / "names").write_text("subjectAltName=URI:im:eve@example.org\n")
        openssl(
            *("x509", "-req", "-in", tmp_path / "alice.csr", "-CA", tmp_path / "ca.pem", "-CAkey", tmp_path / "ca.key"),
            *("-extfile", tmp_path / "names", "-out", tmp_path / "eve.pem"),
        )
        result = comity("keys", "import", tmp_path / "eve.pem")
        assert result.exit_code == 2
        assert "it names im:eve@example.org" in result.stderr

    def test_choices_that_exclude_one_another(self, tmp_path: Path) -> None:
        for extra in (
            ["--request", "x", "--own-ca"],
            ["--kind", "openpgp", "--own-ca"],
            ["--kind", "openpgp", "--request", "x"],
        ):
            assert comity("keys", "new", ALICE, *extra).exit_code == 2


class TestRevocation:
    def test_a_self_signed_key_revokes_itself_for_who_takes_the_list_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        comity("keys", "new", ALICE)
        signed = comity("sign", "-", stdin=message()).stdout_bytes
        comity("keys", "export", ALICE, "-o", tmp_path / "alice.pem")
        revoked = comity("keys", "revoke", ALICE, "--reason", "key-compromise", "-o", tmp_path / "alice.crl")
        assert revoked.exit_code == 0, revoked.output
        text = openssl("crl", "-in", tmp_path / "alice.crl", "-noout", "-text", "-CAfile", tmp_path / "alice.pem")
        assert b"Key Compromise" in text.stdout
        assert comity("sign", "-", stdin=message()).exit_code == 2, "it signs no more"
        monkeypatch.setenv("COMITY_HOME", str(tmp_path / "bob"))
        comity("keys", "trust", tmp_path / "alice.pem")
        assert comity("verify", "-", stdin=signed).exit_code == 0
        assert "taken in" in comity("keys", "import", tmp_path / "alice.crl").stdout
        assert "revoked" in comity("verify", "-", stdin=signed).stdout

    def test_an_authority_revokes_and_its_next_list_still_names_the_first(self, tmp_path: Path) -> None:
        for who in (ALICE, BOB):
            comity("keys", "new", who, "--own-ca")
            assert comity("keys", "revoke", who, "-o", tmp_path / "list.crl").exit_code == 0
        text = openssl("crl", "-in", tmp_path / "list.crl", "-noout", "-text").stdout.decode()
        assert text.count("Serial Number:") == 2
        assert "X509v3 CRL Number" in text

    def test_a_server_revokes_by_its_directory(self, tmp_path: Path) -> None:
        comity("init", tmp_path / "house", "--domain", "example.org")
        house = tmp_path / "house/data/tls"
        comity("keys", "new", ALICE, "--ca", house)
        comity("keys", "import", house / "ca.pem", "--trust-anchor")
        signed = comity("sign", "-", stdin=message()).stdout_bytes
        alone = comity("keys", "revoke", ALICE, "-o", tmp_path / "list.crl")
        assert alone.exit_code == 2
        assert "ask there" in alone.stderr
        assert comity("keys", "revoke", ALICE, "--ca", house, "-o", tmp_path / "list.crl").exit_code == 0
        assert "revoked" in comity("verify", "-", stdin=signed).stdout

    def test_nobody_revokes_somebody_elses(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        comity("keys", "new", ALICE)
        comity("keys", "export", ALICE, "-o", tmp_path / "alice.pem")
        monkeypatch.setenv("COMITY_HOME", str(tmp_path / "eve"))
        comity("keys", "new", ALICE)
        comity("keys", "import", tmp_path / "alice.pem")
        fingerprint = next(
            entry["fingerprint"]
            for entry in json.loads(comity("keys", "list", "--json").stdout)
            if entry["shelf"] == "known"
        )
        assert comity("keys", "revoke", fingerprint).exit_code == 2

    def test_openpgp_for_gpg(self, tmp_path: Path) -> None:
        """gpg reads the certificate, and then that it is revoked."""
        comity("keys", "new", ALICE, "--kind", "openpgp")
        comity("keys", "export", ALICE, "--form", "openpgp", "-o", tmp_path / "alice.asc")
        revoked = comity("keys", "revoke", ALICE, "-o", tmp_path / "revoked.asc")
        assert revoked.exit_code == 0, revoked.output
        (tmp_path / "gpg").mkdir(mode=0o700)
        gpg = ["gpg", "--homedir", str(tmp_path / "gpg"), "--batch", "--no-autostart", "--with-colons"]
        for file, validity in (("alice.asc", "-"), ("revoked.asc", "r")):
            subprocess.run([*gpg, "--import", str(tmp_path / file)], check=True, capture_output=True)
            listed = subprocess.run([*gpg, "--list-keys"], check=True, capture_output=True, text=True).stdout
            assert next(line for line in listed.splitlines() if line.startswith("pub")).split(":")[1] == validity
            assert "im:alice@example.org" in listed.replace("\\x3a", ":")
        assert comity("sign", "--openpgp", "-", stdin=message()).exit_code == 2


class TestMemory:
    """T33, M-36: the key somebody used first is remembered; another one is announced."""

    def signed_by(self, home: Path, monkeypatch: pytest.MonkeyPatch, *extra: str) -> bytes:
        monkeypatch.setenv("COMITY_HOME", str(home))
        assert comity("keys", "new", ALICE, "--replace", *extra).exit_code == 0
        signed = comity("sign", "-", stdin=message()).stdout_bytes
        monkeypatch.setenv("COMITY_HOME", str(home.parent / "bob"))
        return signed

    def test_first_contact_then_the_same_key_then_a_changed_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = self.signed_by(tmp_path / "alice", monkeypatch)
        seen = [json.loads(comity("verify", "--json", "-", stdin=first).stdout) for _ in range(2)]
        assert [(each["verdict"], each["contact"]) for each in seen] == [
            ("untrusted", "first contact"),
            ("untrusted", f"same key as since {datetime.now(UTC):%Y-%m-%d}"),
        ]
        assert json.loads(comity("keys", "show", ALICE, "--json").stdout)["shelf"] == "known"
        second = self.signed_by(tmp_path / "eve", monkeypatch)
        for _ in range(3):
            changed = json.loads(comity("verify", "--json", "-", stdin=second).stdout)
            assert changed["verdict"] == "changed"
            assert changed["contact"].startswith("changed key: since ")
        assert json.loads(comity("verify", "--json", "-", stdin=first).stdout)["verdict"] == "untrusted"
        history = comity("keys", "show", changed["fingerprint"]).stdout
        assert "this key, not confirmed by you" in history
        comity("keys", "trust", seen[0]["fingerprint"])
        unclear = comity("keys", "trust", ALICE)
        assert unclear.exit_code == 2
        assert "by its fingerprint" in unclear.stderr, "an address alone never accepts a changed key"
        comity("keys", "trust", changed["fingerprint"])
        assert comity("verify", "-", stdin=second).exit_code == 0

    def test_a_bad_signature_leaves_no_trace(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """T33: only signatures that hold are remembered."""
        signed = self.signed_by(tmp_path / "eve", monkeypatch)
        broken = comity("verify", "--json", "-", stdin=signed.replace(b"Hello", b"Hallo"))
        assert json.loads(broken.stdout)["verdict"] == "bad-signature"
        assert comity("keys", "list", "--json").stdout == "[]\n"
        assert not (tmp_path / "bob" / "contacts").exists()

    def test_who_signs_as_another_is_not_remembered_as_that_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COMITY_HOME", str(tmp_path / "eve"))
        comity("keys", "new", BOB)
        signed = comity("sign", "--from", BOB, "-", stdin=message()).stdout_bytes
        monkeypatch.setenv("COMITY_HOME", str(tmp_path / "bob"))
        comity("verify", "-", stdin=signed)
        assert KeyStore().contacts().by_address == {}

    def test_a_key_an_authority_vouches_for_is_not_spoiled_by_a_strangers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """M-36: a self-made certificate with her name came first."""
        comity("init", tmp_path / "house", "--domain", "example.org")
        house = tmp_path / "house/data/tls"
        monkeypatch.setenv("COMITY_HOME", str(tmp_path / "bob"))
        comity("keys", "import", house / "ca.pem", "--trust-anchor")
        forged = self.signed_by(tmp_path / "eve", monkeypatch)
        assert json.loads(comity("verify", "--json", "-", stdin=forged).stdout)["verdict"] == "untrusted"
        real = self.signed_by(tmp_path / "alice", monkeypatch, "--ca", str(house))
        assert json.loads(comity("verify", "--json", "-", stdin=real).stdout)["verdict"] == "valid"
        assert json.loads(comity("verify", "--json", "-", stdin=forged).stdout)["verdict"] == "changed"
        other = self.signed_by(tmp_path / "mallory", monkeypatch, "--ca", str(house))
        assert json.loads(comity("verify", "--json", "-", stdin=other).stdout)["verdict"] == "changed", "CAs err too"

    def test_a_damaged_memory_stops_with_a_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        signed = self.signed_by(tmp_path / "alice", monkeypatch)
        comity("verify", "-", stdin=signed)
        file = next((tmp_path / "bob/contacts").iterdir())
        file.write_bytes(file.read_bytes()[:-20])
        result = comity("verify", "-", stdin=signed)
        assert result.exit_code == 2
        assert "is damaged" in result.stderr
        assert str(file) in result.stderr


def test_a_fingerprint_is_shown_for_reading_aloud_and_read_as_it_is_written() -> None:
    made = json.loads(comity("keys", "new", ALICE, "--json").stdout)["fingerprint"]
    shown = comity("keys", "show", ALICE).stdout
    lines = [line[13:] for line in shown.splitlines()[:2]]
    assert [len(line.split()) for line in lines] == [8, 8]
    assert "".join(lines).replace(" ", "") == made
    assert comity("keys", "show", " ".join(lines)).exit_code == 0
    assert comity("keys", "show", ":".join(made[at : at + 2] for at in range(0, 64, 2)).upper()).exit_code == 0


@pytest.mark.parametrize("form", ["pkcs12", "pem", "openpgp"])
def test_a_private_key_moves_in_each_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    kind = {"pkcs12": "rsa", "pem": "ed25519", "openpgp": "openpgp"}[form]
    (tmp_path / "pass").write_text("open sesame\n")
    secret = ("--passphrase-file", tmp_path / "pass")
    comity("keys", "new", ALICE, "--kind", kind, *secret)
    file = tmp_path / "alice.key"
    done = comity("keys", "export", ALICE, "--private", "--form", form, *secret, "-o", file)
    assert done.exit_code == 0, done.output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "laptop"))
    moved = comity("keys", "import", file, *secret)
    assert moved.stdout.startswith("own: "), moved.output
    flag = ["--openpgp"] if form == "openpgp" else []
    assert comity("sign", *flag, *secret, "-", stdin=message()).exit_code == 0
    assert comity("sign", *flag, "-", stdin=message()).exit_code == 2


def test_an_imported_private_key_gets_a_passphrase_or_somebody_is_told(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T30: a key from elsewhere that lay open does not go on lying open unnoticed."""
    comity("keys", "new", ALICE, "--no-passphrase")
    source = home / "keys" / "alice@example.org.pem"
    for number, (extra, is_encrypted, said) in enumerate(
        (
            ([], False, "not under a passphrase"),
            (["--no-passphrase"], False, ""),
            (["--passphrase-file", "pass"], True, ""),
        )
    ):
        (tmp_path / "pass").write_text("open sesame\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COMITY_HOME", str(tmp_path / f"home{number}"))
        result = comity("keys", "import", source, *extra)
        assert result.exit_code == 0, result.output
        assert said in result.stderr
        assert bool(said) is bool(result.stderr)
        assert json.loads(comity("keys", "list", "--json").stdout)[0]["is_encrypted"] is is_encrypted
    exported = tmp_path / "alice.p12"
    comity("keys", "export", ALICE, "--private", "--passphrase-file", tmp_path / "pass", "-o", exported)
    asked = Conversation("keys", "import", exported, home=tmp_path / "asked")
    asked.answer("Passphrase", "open sesame")
    assert asked.end() == 0
    assert b"ENCRYPTED" in next((tmp_path / "asked/keys").glob("*.pem")).read_bytes()


def test_a_key_that_ended_signs_no_more_and_says_what_to_do(home: Path) -> None:
    """Nobody would trust what it signs (M-21)."""
    KeyStore(home).save(new_identity(Address.parse(ALICE), when=datetime.now(UTC) - timedelta(days=9), days=8))
    result = comity("sign", "-", stdin=message())
    assert result.exit_code == 2
    assert "--replace" in result.stderr


def test_a_full_disk_does_not_hide_the_verdict(home: Path) -> None:
    comity("keys", "new", ALICE)
    signed = comity("sign", "-", stdin=message()).stdout_bytes
    (home / "keys" / "alice@example.org.pem").unlink()
    (home / ".lock").unlink()
    (home / ".lock").mkdir()
    result = comity("verify", "-", stdin=signed)
    assert "verdict  untrusted" in result.stdout
    assert "not remembered" in result.stderr


def test_without_the_extra_openpgp_says_how_to_install_it(tmp_path: Path) -> None:
    """The base install: no pysequoia. What lies on a shelf is listed, and relayed to the verdict as it is."""
    comity("keys", "new", ALICE, "--kind", "openpgp")
    code = "import sys; sys.modules['pysequoia'] = None\nfrom comity.cli import main\nsys.argv[0] = 'comity'; main()\n"

    def without(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    for arguments in (["keys", "new", BOB, "--kind", "openpgp"], ["sign", "--openpgp", "x"]):
        done = without(*arguments)
        assert done.returncode == 2
    assert "pip install 'comity[pgp]'" in without("keys", "new", BOB, "--kind", "openpgp").stderr
    assert "comity[pgp]" in without("keys", "list").stdout
