"""``comity account watchers``, ``allow``, ``refuse``, ``polite-block``, ``ask-again``, ``presence`` and ``contacts``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from comity.cli import main

SOURCE = Path(__file__).parent.parent / "src"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The configuration of a server that listens nowhere, with two accounts."""
    config = tmp_path / "house" / "comity.toml"
    assert comity("init", config.parent, "--domain", "example.org").exit_code == 0
    config.write_text(f'[server]\ndomains = ["example.org"]\ndata = "{config.parent / "data"}"\n' + LISTENERS)
    for name in ("alice", "bob"):
        added = CliRunner().invoke(
            main, ["account", "add", f"{name}@example.org", "--password-stdin", "-c", str(config)], input="secret\n"
        )
        assert added.exit_code == 0, added.output
    return config


LISTENERS = '[xmpp]\nclient = ["tcp://127.0.0.1:0"]\n[sip]\nlisten = ["tcp://127.0.0.1:0"]\n'


def comity(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def account(house: Path, *arguments: str) -> Result:
    return comity("account", *arguments, "-c", house)


@contextmanager
def serving(house: Path) -> Iterator[None]:
    """The real program in a process of its own, while the block runs."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    server = subprocess.Popen(
        [sys.executable, "-m", "comity", "serve", "-c", str(house)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        lines = []
        while not (house.parent / "data" / "control.sock").exists():
            lines.append(server.stdout.readline())
            assert server.poll() is None, "".join(lines)
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)


def story(house: Path) -> None:
    """What an operator types, and what the program says."""
    assert "Nobody asked, and nothing was decided." in account(house, "watchers", "bob@example.org").output
    done = account(house, "allow", "bob@example.org", "alice@example.org")
    assert (done.exit_code, done.output) == (0, "alice@example.org may see bob@example.org.\n")
    assert "allowed before asking" in account(house, "watchers", "bob@example.org").output
    listed = json.loads(account(house, "contacts", "bob@example.org", "--json").output)
    assert [one["contact"] for one in listed] == ["alice@example.org"]
    assert "alice@example.org" in account(house, "contacts", "bob@example.org").output
    for command, decision in (("polite-block", "polite"), ("refuse", "refused"), ("ask-again", "none")):
        done = account(house, command, "bob@example.org", "alice@example.org", "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.output)["decision"] == decision
    assert account(house, "presence", "bob@example.org").output.startswith("ask: ")
    assert account(house, "presence", "bob@example.org", "--default", "domain").output.startswith("domain: ")
    assert json.loads(account(house, "watchers", "bob@example.org", "--json").output)["default"] == "domain"
    assert account(house, "presence", "bob@example.org", "--default", "server").output.startswith("ask: ")


def test_an_operator_decides_while_nothing_runs(house: Path) -> None:
    story(house)


def test_an_operator_decides_on_the_running_server_and_it_stays(house: Path) -> None:
    with serving(house):
        story(house)
        assert account(house, "polite-block", "bob@example.org", "alice@example.org").exit_code == 0
    report = json.loads(account(house, "watchers", "bob@example.org", "--json").output)
    assert [(one["watcher"], one["decision"]) for one in report["decided"]] == [("alice@example.org", "polite")]


def test_with_presence_off_decisions_are_still_kept(house: Path) -> None:
    """SEED-45: they hold when it is on again, and whom accounts block stays blocked for messages."""
    house.write_text(house.read_text(encoding="utf-8") + "[policy]\npresence = false\n", encoding="utf-8")
    with serving(house):
        story(house)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["allow", "nobody@example.org", "alice@example.org"], 1, "There is no account nobody@example.org"),
        (["allow", "bob@elsewhere.test", "alice@example.org"], 2, "is not served here"),
        (["allow", "bob@example.org", "alice"], 2, "Write it as bob@example.org."),
        (["allow", "bob@example.org", "bob@example.org"], 1, "always sees itself"),
        (["presence", "bob@example.org", "--default", "perhaps"], 2, "perhaps"),
        (["contacts", "nobody@example.org"], 1, "There is no account"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_an_exit_code(
    house: Path, arguments: list[str], code: int, sentence: str
) -> None:
    done = account(house, *arguments)
    assert done.exit_code == code
    assert sentence in done.stderr
