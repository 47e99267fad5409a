"""The demo, played for real once; its relay; how ``comity send`` and ``comity listen`` take their options."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from comity.cli import main
from comity.client import Received, text_object
from comity.cpim.address import Address
from comity.demo.relay import Flipper, Recorder
from comity.demo.stage import Stage
from comity.demo.story import Story
from comity.demo.thief import intercepted, rewrapped
from comity.secure import openpgp, sign
from tests.secure import kit

ROOT = Path(__file__).parent.parent
SEND = ("send", "--from", "im:alice@a.test", "--to", "im:bob@a.test")


def comity(*arguments: str, stdin: str | bytes = "", env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), input=stdin, env=env)


def test_every_step_of_the_demo_holds(tmp_path: Path) -> None:
    """SEED-1, SEED-2, SEED-28, SEED-52, SEED-54, R-03, G3: separate processes, real sockets, and nothing left behind."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "comity", "demo", "--once", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(tmp_path)},
    )
    assert done.stdout, done.stderr
    steps = json.loads(done.stdout)
    assert [step for step in steps if not step["ok"]] == []
    assert (done.returncode, len(steps)) == (0, 21)
    details = "\n".join(step["detail"] for step in steps)
    assert "valid, signed by im:alice@comity.test" in details
    assert "valid, signed by im:bob@comity.test" in details
    assert "APEX → comity.test → SIP → courtesy.test → XMPP" in details
    assert "XMPP → courtesy.test → SIP → comity.test → APEX" in details
    assert "bad-signature" in details
    assert details.count("nothing of the text is in any file of the server") == 2
    assert "replayed" in details
    assert "signed-by-other" in details
    assert time.monotonic() - began < 120
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_says_that_openpgp_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openpgp, "is_available", False)
    assert "pip install comity[pgp]" in asyncio.run(Story(Stage(tmp_path)).encrypted_by_openpgp())


class TestRelay:
    @given(st.lists(st.binary(max_size=6)), st.integers(0, 7))
    def test_any_cut_of_the_stream_is_changed_in_the_same_one_bit(self, pieces: list[bytes], bit: int) -> None:
        wanted = b"100 euros"
        whole = b"".join(pieces) + wanted + b" and no more"
        changed = b"".join(pieces) + bytes([wanted[0] ^ 1 << bit]) + wanted[1:] + b" and no more"
        flipper = Flipper(wanted, bit)
        cut = [*pieces, wanted[:4], wanted[4:], b" and no more"]
        assert b"".join(map(flipper.feed, cut)) + flipper.end() == changed
        assert len(whole) == len(changed)
        assert flipper.found == 1

    def test_a_record_holds_what_went_on(self, tmp_path: Path) -> None:
        tap = Recorder(tmp_path / "record")
        assert tap.feed(b"one") + tap.feed(b"two") + tap.end() == b"onetwo" == (tmp_path / "record").read_bytes()

    def test_a_stream_that_ends_in_the_middle_of_it_is_passed_on(self) -> None:
        flipper = Flipper(b"100 euros", 0)
        assert flipper.feed(b"pay 100 eu") + flipper.end() == b"pay 100 eu"
        assert flipper.found == 0


class TestThief:
    def test_what_was_signed_is_found_in_a_recorded_stream(self) -> None:
        """A request that was challenged and sent again, between requests without a body."""
        entity = b"Content-Type: text/plain\r\n\r\nhello\r\n\r\nyou"
        message = b"MESSAGE sip:b@a.test SIP/2.0\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\n"
        other = b"REGISTER sip:a.test SIP/2.0\r\nContent-Length: 0\r\n\r\n"
        assert intercepted(other + message + entity.partition(b"\r\n\r\n")[2] + other) == entity
        assert intercepted(other) == b""

    def test_another_wrapping_is_other_octets_and_the_same_signature(self) -> None:
        obj = kit.cpim()
        signed = sign(obj, kit.identity(), when=kit.NOW)
        other = rewrapped(signed.entity)
        assert other != signed.entity
        assert kit.judged(other).is_valid


class TestSend:
    @pytest.mark.parametrize("via", ["xmpp", "apex"])
    def test_only_sip_goes_by_datagrams(self, via: str) -> None:
        result = comity(*SEND, "--via", via, "--transport", "udp", "hello", env={"COMITY_PASSWORD": "x"})
        assert result.exit_code == 2
        assert "--transport tcp or tls" in result.stderr

    @pytest.mark.parametrize("server", ["127.0.0.1", "127.0.0.1:", ":5060", "host:0", "host:65536", "host:٣"])
    def test_a_server_is_a_host_and_a_port(self, server: str) -> None:
        result = comity(*SEND, "--via", "sip", "--server", server, "hello")
        assert result.exit_code == 2
        assert "HOST:PORT" in result.stderr

    def test_an_empty_password_file_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "password").write_text("\n")
        result = comity(*SEND, "--via", "sip", "--password-file", str(tmp_path / "password"), "hello")
        assert result.exit_code == 2
        assert "holds no password" in result.stderr

    def test_text_that_is_not_utf8_needs_its_type(self) -> None:
        result = comity(*SEND, "--via", "sip", "-", stdin=b"gr\xfc\xdfe", env={"COMITY_PASSWORD": "x"})
        assert result.exit_code == 2
        assert "not UTF-8" in result.stderr

    def test_signing_needs_a_key(self, tmp_path: Path) -> None:
        env = {"COMITY_PASSWORD": "x", "COMITY_HOME": str(tmp_path)}
        result = comity(*SEND, "--via", "sip", "--sign", "hello", env=env)
        assert result.exit_code == 2
        assert "comity keys new im:alice@a.test" in result.stderr

    @pytest.mark.parametrize("via", ["sip", "xmpp"])
    def test_no_server_there_is_a_sentence_and_exit_code_1(self, via: str) -> None:
        command = (*SEND, "--via", via, "--transport", "tcp", "--server", "127.0.0.1:1", "hello")
        result = comity(*command, env={"COMITY_PASSWORD": "x"})
        assert result.exit_code == 1
        assert result.stderr.startswith("comity: ")


class OneMessage:
    """A client with one message; like the real ones, asking for the next one takes it."""

    def __init__(self, *_: object, **__: object) -> None:
        self.taken = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def messages(self) -> AsyncIterator[Received]:
        alice, bob = Address.im("alice", "a.test"), Address.im("bob", "a.test")
        yield Received(text_object(alice, bob, "hello \x1b[2J"), alice, bob, "a.test")
        self.taken += 1
        await asyncio.Event().wait()


class TestListen:
    @pytest.fixture
    def client(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OneMessage:
        client = OneMessage()
        monkeypatch.setattr("comity.cli.messages.connect", lambda *_, **__: client)
        monkeypatch.setenv("COMITY_HOME", str(tmp_path))
        monkeypatch.setenv("COMITY_PASSWORD", "x")
        return client

    def test_the_last_message_counts_as_taken_too(self, client: OneMessage) -> None:
        """Else the server would deliver it again."""
        result = comity("listen", "im:bob@a.test", "--via", "xmpp", "--count", "1", "--json")
        assert (result.exit_code, client.taken) == (0, 1)
        line = json.loads(result.stdout)
        assert (line["from"], line["to"], line["type"]) == ("im:alice@a.test", "im:bob@a.test", "message/cpim")
        assert (line["verdict"], line["signer"], line["asserted_by"]) == ("unsigned", "", "a.test")
        assert result.stderr == "comity: listening as im:bob@a.test by xmpp\n"

    def test_fewer_than_count_in_time_is_exit_code_1(self, client: OneMessage) -> None:
        """W-12: what a message holds cannot write to the terminal."""
        result = comity("listen", "im:bob@a.test", "--via", "xmpp", "--count", "2", "--timeout", "0.1")
        assert result.exit_code == 1
        assert "1 of 2 messages came" in result.stderr
        assert "hello \\u001b[2J" in result.stdout
        assert client.taken == 1

    def test_no_server_there_is_a_sentence_and_exit_code_1(self, tmp_path: Path) -> None:
        command = ("listen", "im:bob@a.test", "--via", "xmpp", "--server", "127.0.0.1:1")
        result = comity(*command, env={"COMITY_PASSWORD": "x", "COMITY_HOME": str(tmp_path)})
        assert result.exit_code == 1
        assert result.stderr.startswith("comity: ")

    @pytest.mark.parametrize("wrong", [("--count", "0"), ("--timeout", "0")])
    def test_a_count_and_a_timeout_are_positive(self, wrong: tuple[str, str]) -> None:
        assert comity("listen", "im:bob@a.test", "--via", "sip", *wrong).exit_code == 2
