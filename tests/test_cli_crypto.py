"""inspect, sign, verify and keys, as a person or a script uses them (design.md section 4)."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from comity.cli import main
from comity.cli.dissect import dissect

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


ENTITY = b"Content-Type: Message/CPIM\r\n\r\n"


class TestInspect:
    def test_the_three_layers_and_their_offsets(self) -> None:
        """RFC 3862 section 2: MIME headers, message headers, content."""
        raw = ENTITY + message()
        result = comity("inspect", "--json", "-", stdin=raw)
        assert result.exit_code == 0
        found = json.loads(result.stdout)
        assert (found["form"], found["octets"], found["well_formed"]) == ("entity", len(raw), True)
        assert found["sha256"] == hashlib.sha256(message()).hexdigest()
        assert [(layer["path"], layer["kind"]) for layer in found["layers"]] == [
            ("1", "mime"),
            ("1", "message"),
            ("1.1", "content"),
        ]
        for layer in found["layers"]:
            for line in layer["headers"]:
                assert raw[line["offset"] :].startswith(line["name"].encode() + b":"), line
        content = found["layers"][2]
        assert raw[content["body_offset"] :] == b"Hello\r\n"
        assert content["body_octets"] == 7
        outer, inner = found["layers"][:2]
        assert raw[outer["offset"] : outer["offset"] + outer["octets"]] == b"Content-Type: Message/CPIM\r\n"
        assert raw[inner["body_offset"] :].startswith(b"Content-Type: text/plain")
        assert raw[inner["offset"] : inner["offset"] + inner["octets"]].endswith(b"Subject: hi\r\n")

    def test_a_bare_object_is_taken_as_one(self) -> None:
        result = comity("inspect", "-", stdin=message())
        assert result.exit_code == 0
        assert "bare message/cpim object" in result.stdout
        assert "MIME headers (none in the file)" in result.stdout
        assert "Well formed." in result.stdout

    @pytest.mark.parametrize(
        ("raw", "offset", "reason"),
        [
            (message().replace(b"\r\n", b"\n"), 34, "line end other than CR LF"),
            (message().replace(b"Subject: hi", b"Subject:hi"), 98, ""),
            (message().replace(b"\r\n\r\nContent-Type", b"\r\nContent-Type"), None, ""),
            (ENTITY + message()[:60], 90, "no empty line ends"),
            (b"Content-Type: multipart/signed; boundary=x\r\n\r\n--x\r\nA: b\r\n\r\nc\r\n", None, "closing boundary"),
            (b"", 0, "no empty line"),
        ],
    )
    def test_what_is_malformed_is_said_with_its_octet(self, raw: bytes, offset: int | None, reason: str) -> None:
        result = comity("inspect", "--json", "-", stdin=raw)
        assert result.exit_code == 1
        found = json.loads(result.stdout)
        bad = [problem for problem in found["problems"] if problem["is_malformed"]]
        assert not found["well_formed"]
        assert reason in bad[0]["reason"]
        if offset is not None:
            assert bad[0]["offset"] == offset
        assert "malformed in " in comity("inspect", "-", stdin=raw).stdout

    def test_hostile_values_are_escaped(self) -> None:
        """W-12: an escape in a Subject must not reach the terminal."""
        result = comity("inspect", "-", stdin=message().replace(b"Subject: hi", b"Subject: \\u001b[2Jhi\\u000aFrom: x"))
        assert "\x1b" not in result.stdout
        assert "\\u001b[2Jhi\\u000aFrom: x" in result.stdout

    def test_ambiguities_are_notes(self) -> None:
        """FMT-38."""
        raw = message().replace(b"To: ", b"From: <im:mallory@example.org>\r\nTo: ")
        found = json.loads(comity("inspect", "--json", "-", stdin=raw).stdout)
        reasons = [problem["reason"] for problem in found["problems"]]
        assert "there are several From headers, so nobody is the sender" in reasons

    def test_layers_inside_layers_are_found(self) -> None:
        inner = b"From: <im:a@b.example>\r\nTo: <im:c@d.example>\r\n\r\nContent-Type: message/cpim\r\n\r\n" + message()
        found = dissect(ENTITY + inner)
        assert [(layer.path, layer.kind) for layer in found.layers] == [
            ("1", "mime"),
            ("1", "message"),
            ("1.1", "content"),
            ("1.1", "message"),
            ("1.1.1", "content"),
        ]

    def test_endless_nesting_ends(self) -> None:
        raw = b"\r\n\r\nContent-Type: message/cpim\r\n" * 200 + b"\r\n"
        found = dissect(b"From: <im:a@b.example>\r\nTo: <im:c@d.example>" + raw)
        assert len(found.layers) < 30

    def test_offsets_are_left_out_behind_a_transfer_encoding(self) -> None:
        raw = b"Content-Type: message/cpim\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.b64encode(message())
        found = dissect(raw)
        assert found.is_well_formed
        assert found.layers[1].offset is None
        assert found.layers[1].headers[0].name == "From"

    def test_a_file_too_large_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "big").write_bytes(bytes(3 * 1024 * 1024))
        result = comity("inspect", tmp_path / "big")
        assert result.exit_code == 2
        assert "is this the right file?" in result.stderr

    def test_a_missing_file_is_a_sentence(self, tmp_path: Path) -> None:
        result = comity("inspect", tmp_path / "none")
        assert result.exit_code == 2
        assert "No such file" in result.stderr

    @given(
        st.one_of(
            st.binary(max_size=300),
            st.binary(max_size=100).map(lambda b: ENTITY + b),
            st.binary(max_size=60).map(lambda b: message().replace(b"hi", b)),
        )
    )
    def test_any_octets_can_be_dissected(self, raw: bytes) -> None:
        found = dissect(raw)
        assert found.octets == len(raw)
        assert found.layers
        for layer in found.layers:
            assert all(line.offset is None or 0 <= line.offset < len(raw) for line in layer.headers)


class TestSignAndVerify:
    def test_what_is_signed_verifies_and_what_is_changed_does_not(self, tmp_path: Path) -> None:
        """M-01, M-02; the JSON is that of design.md section 4."""
        assert comity("keys", "new", ALICE).exit_code == 0
        (tmp_path / "m").write_bytes(message())
        assert comity("sign", "--from", ALICE, tmp_path / "m", "-o", tmp_path / "s").exit_code == 0
        assert message() in (tmp_path / "s").read_bytes()
        good = comity("verify", "--json", tmp_path / "s")
        assert good.exit_code == 0
        found = json.loads(good.stdout)
        assert list(found)[:5] == ["verdict", "signer", "from", "sha256", "reason"]
        assert (found["verdict"], found["signer"], found["from"]) == ("valid", ALICE, ALICE)
        changed = comity("verify", "--json", "-", stdin=(tmp_path / "s").read_bytes().replace(b"Hello", b"Hallo"))
        assert (changed.exit_code, json.loads(changed.stdout)["verdict"]) == (1, "bad-signature")

    @pytest.mark.parametrize("form", ["multipart", "signed-data"])
    def test_both_forms_give_back_the_signed_octets(self, tmp_path: Path, form: str) -> None:
        comity("keys", "new", ALICE)
        signed = comity("sign", "--form", form, "-", stdin=message()).stdout_bytes
        result = comity("verify", "-", "-o", tmp_path / "content", stdin=signed)
        assert result.exit_code == 0
        assert "verdict  valid" in result.stdout
        assert (tmp_path / "content").read_bytes().endswith(b"\r\n\r\n" + message())

    def test_openssl_verifies_what_was_signed(self, tmp_path: Path) -> None:
        comity("keys", "new", ALICE)
        (tmp_path / "s").write_bytes(comity("sign", "-", stdin=message()).stdout_bytes)
        comity("keys", "export", ALICE, "-o", tmp_path / "alice.pem")
        command = ["openssl", "cms", "-verify", "-in", tmp_path / "s", "-CAfile", tmp_path / "alice.pem"]
        done = subprocess.run([*map(str, command), "-partial_chain"], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(b"Hello\r\n")

    def test_an_unsigned_object_is_exit_code_1(self) -> None:
        result = comity("verify", "--json", "-", stdin=ENTITY + message())
        assert (result.exit_code, json.loads(result.stdout)["verdict"]) == (1, "unsigned")

    def test_the_envelope_is_compared(self) -> None:
        """SEED-28, SEED-34."""
        comity("keys", "new", ALICE)
        signed = comity("sign", "-", stdin=message()).stdout_bytes
        assert (
            comity(
                "verify", "--from", "sip:alice@example.org", "--to", "im:bob@example.net", "-", stdin=signed
            ).exit_code
            == 0
        )
        for options, verdict in (
            (["--from", "im:eve@example.org"], "envelope-mismatch"),
            (["--to", ALICE], "not-addressed"),
        ):
            result = comity("verify", "--json", *options, "-", stdin=signed)
            assert (result.exit_code, json.loads(result.stdout)["verdict"]) == (1, verdict)

    def test_an_old_message_is_stale_now_and_valid_then(self) -> None:
        comity("keys", "new", ALICE)
        old = datetime.now(UTC) - timedelta(days=30)
        later = datetime.now(UTC) + timedelta(days=30)
        signed = comity("sign", "-", stdin=message()).stdout_bytes
        assert "stale" in comity("verify", "--at", later.isoformat(), "-", stdin=signed).stdout
        assert comity("verify", "--at", "yesterday", "-", stdin=signed).exit_code == 2
        assert comity("verify", "--at", old.replace(tzinfo=None).isoformat(), "-", stdin=signed).exit_code == 2

    def test_without_a_key_it_says_how_to_make_one(self) -> None:
        result = comity("sign", "-", stdin=message())
        assert result.exit_code == 2
        assert f"comity keys new {ALICE}" in result.stderr

    def test_a_file_from_unix_needs_crlf(self) -> None:
        comity("keys", "new", ALICE)
        text = message().replace(b"\r\n", b"\n")
        refused = comity("sign", "-", stdin=text)
        assert refused.exit_code == 2
        assert "--crlf" in refused.stderr
        signed = comity("sign", "--crlf", "-", stdin=text)
        assert message() in signed.stdout_bytes

    def test_json_of_sign(self, tmp_path: Path) -> None:
        comity("keys", "new", ALICE)
        found = json.loads(comity("sign", "--json", "-", stdin=message()).stdout)
        assert message() in base64.b64decode(found["entity"])
        assert (found["from"], found["form"]) == (ALICE, "multipart")

    def test_a_key_under_a_passphrase(self, tmp_path: Path) -> None:
        (tmp_path / "pass").write_text("open sesame\n")
        comity("keys", "new", ALICE, "--passphrase-file", tmp_path / "pass")
        assert "under a passphrase" in comity("sign", "-", stdin=message()).stderr
        assert comity("sign", "--passphrase-file", tmp_path / "pass", "-", stdin=message()).exit_code == 0
        (tmp_path / "pass").write_text("\n")
        assert comity("sign", "--passphrase-file", tmp_path / "pass", "-", stdin=message()).exit_code == 2
