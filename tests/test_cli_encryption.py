"""``comity encrypt`` and ``comity decrypt`` as a person or a script uses them (SEC-16, SEC-20, SEC-27, M-28, M-33)."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from comity.cli import main

ALICE, BOB, CAROL = "im:alice@a.test", "im:bob@b.test", "im:carol@c.test"
KINDS = ["p256", "ed25519", "rsa", "openpgp"]
Person = Callable[..., Result]


def message() -> bytes:
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        f"From: <{ALICE}>\r\nTo: <{BOB}>\r\nDateTime: {stamp}\r\n\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n\r\nThe launch is at noon.\r\n"
    ).encode()


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Person]:
    """``people("alice")("keys", "list")`` runs a command with her COMITY_HOME."""

    def person(name: str) -> Person:
        def run(*arguments: str | Path, stdin: bytes = b"") -> Result:
            monkeypatch.setenv("COMITY_HOME", str(tmp_path / name))
            return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)

        return run

    return person


def flags(kind: str) -> list[str]:
    return ["--openpgp"] if kind == "openpgp" else []


def exchange(one: Person, other: Person, folder: Path, address: str, kind: str) -> None:
    """``other`` makes a key, and ``one`` pins it."""
    assert other("keys", "new", address, "--kind", kind, "--no-passphrase").exit_code == 0
    form = ["--form", "openpgp"] if kind == "openpgp" else []
    assert other("keys", "export", address, *form, "-o", folder / "theirs").exit_code == 0
    assert one("keys", "trust", folder / "theirs").exit_code == 0


class TestRoundTrip:
    @pytest.mark.parametrize("kind", KINDS)
    def test_signed_and_encrypted_it_is_valid_for_the_recipient_and_nothing_for_others(
        self, people: Callable[[str], Person], tmp_path: Path, kind: str
    ) -> None:
        alice, bob, carol = map(people, ("alice", "bob", "carol"))
        exchange(alice, bob, tmp_path, BOB, kind)
        exchange(bob, alice, tmp_path, ALICE, kind)
        carol("keys", "new", CAROL, "--kind", kind)
        sealed = alice("encrypt", "-", "--to", BOB, "--sign", *flags(kind), stdin=message())
        assert sealed.exit_code == 0, sealed.output
        assert b"launch" not in sealed.stdout_bytes
        found = json.loads(bob("verify", "--json", "-", stdin=sealed.stdout_bytes).stdout)
        assert (found["verdict"], found["signer"], found["encrypted"]) == ("valid", ALICE, True)
        assert [layer.split(",")[0].split()[0] for layer in found["layers"]] == ["encrypted", "signed"]
        opened = bob("decrypt", "-", stdin=sealed.stdout_bytes)
        assert opened.exit_code == 0
        assert b"The launch is at noon.\r\n" in opened.stdout_bytes
        assert "valid" in opened.stderr
        for stranger in (carol, people("nobody")):
            refused = stranger("decrypt", "-", stdin=sealed.stdout_bytes)
            assert (refused.exit_code, refused.stdout_bytes) == (1, b"")

    @pytest.mark.parametrize("kind", KINDS)
    def test_encrypted_only_it_says_that_nobody_signed(
        self, people: Callable[[str], Person], tmp_path: Path, kind: str
    ) -> None:
        alice, bob = people("alice"), people("bob")
        exchange(alice, bob, tmp_path, BOB, kind)
        sealed = alice("encrypt", "-", "--to", BOB, *flags(kind), stdin=message()).stdout_bytes
        found = bob("verify", "--json", "-", stdin=sealed)
        assert (found.exit_code, json.loads(found.stdout)["verdict"]) == (1, "unsigned")

    def test_several_recipients_and_oneself_read_it(self, people: Callable[[str], Person], tmp_path: Path) -> None:
        alice, bob, carol = map(people, ("alice", "bob", "carol"))
        exchange(alice, bob, tmp_path, BOB, "p256")
        exchange(alice, carol, tmp_path, CAROL, "rsa")
        alice("keys", "new", ALICE)
        sealed = alice("encrypt", "-", "--to", BOB, "--to", CAROL, "--to", ALICE, stdin=message()).stdout_bytes
        for person in (alice, bob, carol):
            assert b"at noon" in person("decrypt", "-", stdin=sealed).stdout_bytes

    def test_a_replaced_key_still_opens_what_was_encrypted_for_it(
        self, people: Callable[[str], Person], tmp_path: Path
    ) -> None:
        alice, bob = people("alice"), people("bob")
        for kind in ("p256", "openpgp"):
            exchange(alice, bob, tmp_path, BOB, kind)
            sealed = alice("encrypt", "-", "--to", BOB, *flags(kind), stdin=message()).stdout_bytes
            assert bob("keys", "new", BOB, "--kind", kind, "--replace").exit_code == 0
            assert b"at noon" in bob("decrypt", "-", stdin=sealed).stdout_bytes
            bob("keys", "revoke", BOB, "-o", tmp_path / "revoked")
            assert b"at noon" in bob("decrypt", "-", stdin=sealed).stdout_bytes

    def test_openssl_opens_what_was_encrypted(self, people: Callable[[str], Person], tmp_path: Path) -> None:
        alice, bob = people("alice"), people("bob")
        exchange(alice, bob, tmp_path, BOB, "p256")
        sealed = alice("encrypt", "-", "--to", BOB, stdin=message()).stdout_bytes
        key = tmp_path / "bob" / "keys" / "bob@b.test.pem"
        done = subprocess.run(
            ["openssl", "cms", "-decrypt", "-inkey", key, "-recip", key], input=sealed, capture_output=True, check=True
        )
        assert b"at noon" in done.stdout

    @pytest.mark.parametrize(
        "sender", [["cms", "-encrypt", "-aes-128-gcm"], ["cms", "-sign", "-nodetach"]], ids=" ".join
    )
    def test_what_openssl_wrote_to_a_file_is_read(
        self, people: Callable[[str], Person], tmp_path: Path, sender: list[str]
    ) -> None:
        """With LF at the line ends around the CMS object, as OpenSSL leaves them without -crlfeol."""
        bob = people("bob")
        bob("keys", "new", BOB, "--no-passphrase")
        bob("keys", "export", BOB, "-o", tmp_path / "bob.pem")
        own = tmp_path / "bob" / "keys" / "bob@b.test.pem"
        who = [str(tmp_path / "bob.pem")] if "-encrypt" in sender else ["-signer", str(own)]
        entity = b"Content-Type: Message/CPIM\r\n\r\n" + message().replace(ALICE.encode(), BOB.encode())
        command = ["openssl", *sender, "-binary", *who]
        raw = subprocess.run(command, input=entity, capture_output=True, check=True).stdout
        assert b"\r\n" not in raw
        if "-encrypt" in sender:
            assert b"at noon" in bob("decrypt", "-", stdin=raw).stdout_bytes
        else:
            assert json.loads(bob("verify", "--json", "-", stdin=raw).stdout)["verdict"] == "valid"

    def test_json_holds_the_entity_or_leaves_it_to_the_file(
        self, people: Callable[[str], Person], tmp_path: Path
    ) -> None:
        alice, bob = people("alice"), people("bob")
        exchange(alice, bob, tmp_path, BOB, "p256")
        sealed = json.loads(alice("encrypt", "-", "--to", BOB, "--json", stdin=message()).stdout)
        assert sealed["to"][0]["address"] == BOB
        raw = base64.b64decode(sealed["entity"])
        opened = json.loads(bob("decrypt", "-", "--json", stdin=raw).stdout)
        assert b"at noon" in base64.b64decode(opened["entity"])
        assert (opened["authenticated"], opened["verdict"]["verdict"]) == (True, "unsigned")
        apart = json.loads(bob("decrypt", "-", "--json", "-o", tmp_path / "inside", stdin=raw).stdout)
        assert "entity" not in apart
        assert b"at noon" in (tmp_path / "inside").read_bytes()


class TestForWhom:
    """T33: a certificate that merely came along is a candidate, not trusted."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_nothing_is_encrypted_for_a_key_nobody_vouches_for(
        self, people: Callable[[str], Person], tmp_path: Path, kind: str
    ) -> None:
        alice, bob = people("alice"), people("bob")
        none = alice("encrypt", "-", "--to", BOB, *flags(kind), stdin=message())
        assert none.exit_code == 2
        assert "to encrypt for" in none.stderr
        bob("keys", "new", BOB, "--kind", kind)
        form = ["--form", "openpgp"] if kind == "openpgp" else []
        bob("keys", "export", BOB, *form, "-o", tmp_path / "bob.crt")
        alice("keys", "import", tmp_path / "bob.crt")
        refused = alice("encrypt", "-", "--to", BOB, *flags(kind), stdin=message())
        assert (refused.exit_code, refused.stdout_bytes) == (2, b"")
        assert "comity keys trust" in refused.stderr
        told = alice("encrypt", "-", "--to", BOB, "--to-unverified", *flags(kind), stdin=message())
        assert told.exit_code == 0, told.output
        assert "nobody vouches" in told.stderr
        assert b"at noon" in bob("decrypt", "-", stdin=told.stdout_bytes).stdout_bytes
        assert alice("keys", "trust", refused.stderr.split()[-1]).exit_code == 0, "the sentence names what to trust"
        assert alice("encrypt", "-", "--to", BOB, *flags(kind), stdin=message()).exit_code == 0

    def test_two_candidates_are_never_chosen_between(self, people: Callable[[str], Person], tmp_path: Path) -> None:
        alice = people("alice")
        for name in ("bob", "eve"):
            person = people(name)
            person("keys", "new", BOB)
            person("keys", "export", BOB, "-o", tmp_path / name / "bob.pem")
            alice("keys", "import", tmp_path / name / "bob.pem")
        refused = alice("encrypt", "-", "--to", BOB, "--to-unverified", stdin=message())
        assert refused.exit_code == 2
        assert "not clear" in refused.stderr
        alice("keys", "trust", tmp_path / "bob" / "bob.pem")
        sealed = alice("encrypt", "-", "--to", BOB, stdin=message()).stdout_bytes
        assert b"at noon" in people("bob")("decrypt", "-", stdin=sealed).stdout_bytes
        assert people("eve")("decrypt", "-", stdin=sealed).exit_code == 1

    def test_a_changed_key_is_not_encrypted_for(self, people: Callable[[str], Person], tmp_path: Path) -> None:
        """Bob is pinned; a stranger signs as Bob: what is encrypted still goes to the pinned key, and to no other."""
        alice, bob, eve = map(people, ("alice", "bob", "eve"))
        exchange(alice, bob, tmp_path, BOB, "p256")
        eve("keys", "new", BOB)
        forged = eve(
            "sign", "--from", BOB, "-", stdin=message().replace(b"alice@a.test", b"bob@b.test", 1)
        ).stdout_bytes
        assert json.loads(alice("verify", "--json", "-", stdin=forged).stdout)["verdict"] == "changed"
        for extra in ([], ["--to-unverified"]):
            sealed = alice("encrypt", "-", "--to", BOB, *extra, stdin=message()).stdout_bytes
            assert b"at noon" in bob("decrypt", "-", stdin=sealed).stdout_bytes
            assert eve("decrypt", "-", stdin=sealed).exit_code == 1

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_distrusted_or_revoked_key_is_not_encrypted_for(
        self, people: Callable[[str], Person], tmp_path: Path, kind: str
    ) -> None:
        alice, bob = people("alice"), people("bob")
        exchange(alice, bob, tmp_path, BOB, kind)
        bob("keys", "revoke", BOB, "-o", tmp_path / "revoked")
        assert alice("encrypt", "-", "--to", BOB, *flags(kind), stdin=message()).exit_code == 0, "not told yet"
        assert alice("keys", "import", tmp_path / "revoked").exit_code == 0
        revoked = alice("encrypt", "-", "--to", BOB, *flags(kind), stdin=message())
        assert revoked.exit_code == 2
        assert "revoked" in revoked.stderr
        alice("keys", "distrust", tmp_path / "theirs")
        assert alice("encrypt", "-", "--to", BOB, "--to-unverified", *flags(kind), stdin=message()).exit_code == 2

    def test_an_authority_vouches_for_who_never_wrote(self, people: Callable[[str], Person], tmp_path: Path) -> None:
        alice, bob = people("alice"), people("bob")
        bob("init", tmp_path / "house", "--domain", "b.test")
        for kind in ("p256", "ed25519"):
            bob("keys", "new", BOB, "--ca", tmp_path / "house/data/tls", "--kind", kind, "--replace")
            bob("keys", "export", BOB, "-o", tmp_path / "bob.pem")
            alice("keys", "import", tmp_path / "bob.pem")
            if kind == "p256":
                assert alice("encrypt", "-", "--to", BOB, stdin=message()).exit_code == 2
                alice("keys", "import", tmp_path / "house/data/tls/ca.pem", "--trust-anchor")
            sealed = alice("encrypt", "-", "--to", BOB, stdin=message())
            assert sealed.exit_code == 0, sealed.output
            assert b"at noon" in bob("decrypt", "-", stdin=sealed.stdout_bytes).stdout_bytes

    def test_an_answer_goes_to_the_key_that_came_along(self, people: Callable[[str], Person], tmp_path: Path) -> None:
        """SEC-20: of an Ed25519 signer the X25519 certificate is kept from the signed message itself."""
        alice, bob = people("alice"), people("bob")
        bob("keys", "new", BOB, "--kind", "ed25519")
        text = (
            message()
            .replace(b"alice@a.test", b"b", 1)
            .replace(b"bob@b.test", ALICE[3:].encode())
            .replace(b"<im:b>", b"<im:bob@b.test>")
        )
        signed = bob("sign", "-", stdin=text).stdout_bytes
        found = json.loads(alice("verify", "--json", "-", stdin=signed).stdout)
        assert (found["verdict"], found["contact"]) == ("untrusted", "first contact")
        alice("keys", "trust", found["fingerprint"])
        sealed = alice("encrypt", "-", "--to", BOB, stdin=message())
        assert sealed.exit_code == 0, sealed.output
        assert b"at noon" in bob("decrypt", "-", stdin=sealed.stdout_bytes).stdout_bytes


class TestRefusals:
    def test_why_it_does_not_open_is_not_said(self, people: Callable[[str], Person], tmp_path: Path) -> None:
        """M-33: whatever octet was changed, one text."""
        alice, bob = people("alice"), people("bob")
        exchange(alice, bob, tmp_path, BOB, "p256")
        raw = alice("encrypt", "-", "--to", BOB, stdin=message()).stdout_bytes
        head, _, text = raw.partition(b"\r\n\r\n")
        der = base64.b64decode(text)
        seen = set()
        for at in (len(der) - 1, len(der) - 20, len(der) - 120):
            damaged = der[:at] + bytes([der[at] ^ 1]) + der[at + 1 :]
            result = bob("decrypt", "-", stdin=head + b"\r\n\r\n" + base64.encodebytes(damaged).replace(b"\n", b"\r\n"))
            assert (result.exit_code, result.stdout_bytes) == (1, b"")
            seen.add(result.stderr)
        assert len(seen) == 1

    def test_the_old_way_without_a_signature_inside_is_not_written(
        self, people: Callable[[str], Person], tmp_path: Path
    ) -> None:
        """M-28: AES-CBC by openssl, unsigned: whoever changed it on the way would not be noticed."""
        bob = people("bob")
        bob("keys", "new", BOB, "--no-passphrase")
        bob("keys", "export", BOB, "-o", tmp_path / "bob.pem")
        entity = b"Content-Type: Message/CPIM\r\n\r\n" + message()
        command = [
            "openssl",
            "cms",
            "-encrypt",
            "-binary",
            "-aes-128-cbc",
            "-outform",
            "DER",
            str(tmp_path / "bob.pem"),
        ]
        der = subprocess.run(command, input=entity, capture_output=True, check=True).stdout
        head = b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        result = bob("decrypt", "-", stdin=head + base64.encodebytes(der).replace(b"\n", b"\r\n"))
        assert (result.exit_code, result.stdout_bytes) == (1, b"")

    def test_what_is_not_encrypted_is_said(self, people: Callable[[str], Person]) -> None:
        result = people("bob")("decrypt", "-", stdin=message())
        assert result.exit_code == 1
        assert "no encrypted object" in result.stderr

    def test_a_key_under_a_passphrase_is_asked_for(self, people: Callable[[str], Person], tmp_path: Path) -> None:
        alice, bob = people("alice"), people("bob")
        exchange(alice, bob, tmp_path, BOB, "p256")
        (tmp_path / "pass").write_text("open sesame\n")
        bob("keys", "passphrase", BOB, "--new-passphrase-file", tmp_path / "pass")
        sealed = alice("encrypt", "-", "--to", BOB, stdin=message()).stdout_bytes
        assert "under a passphrase" in bob("decrypt", "-", stdin=sealed).stderr
        assert bob("decrypt", "--passphrase-file", tmp_path / "pass", "-", stdin=sealed).exit_code == 0
        unopened = bob("verify", "--json", "-", stdin=sealed)
        assert json.loads(unopened.stdout)["verdict"] in ("encrypted", "no-key")
        assert "will not be opened" in unopened.stderr
        opened = bob("verify", "--json", "--passphrase-file", tmp_path / "pass", "-", stdin=sealed)
        assert json.loads(opened.stdout)["verdict"] == "unsigned"
