"""The command line: sentences, exit codes 0, 1 and 2, JSON, and a process that obeys signals (design.md section 4)."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from comity.cli import main
from comity.cli.output import printable
from comity.config import read
from comity.store.sqlite import SqliteStore
from tests.loop import in_loop

SOURCE = Path(__file__).parent.parent / "src"


def comity(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The configuration file of a directory made by ``comity init``."""
    result = comity("init", tmp_path / "house", "--domain", "example.org")
    assert result.exit_code == 0, result.output
    return tmp_path / "house/comity.toml"


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


class TestHelp:
    def test_a_command_does_not_wait_for_what_only_others_need(self) -> None:
        """A shell script calls the program many times: `comity --version` loads no protocol and no cryptography."""
        code = "import sys, comity.cli as c\ntry: c.main(['--version'])\nexcept SystemExit: print(*sorted(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "comity.cli" in done.stdout.split()
        assert not {"comity.secure", "comity.client", "comity.server", "cryptography"} & set(done.stdout.split())

    @pytest.mark.parametrize(
        ("path", "command"), list(commands(main)), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
    )
    def test_every_command_has_help_with_an_example(self, path: tuple[str, ...], command: click.Command) -> None:
        result = comity(*path, "--help")
        assert result.exit_code == 0
        if not isinstance(command, click.Group):
            assert "Example" in result.output
            assert f"comity {' '.join(path)}" in result.output
            options = [item for item in command.params if isinstance(item, click.Option)]
            assert all(option.help for option in options)

    def test_every_name_of_the_design_exists(self) -> None:
        names = {" ".join(path) for path, _ in commands(main)}
        assert names >= {
            "init", "serve", "config check", "account add", "account list", "account password", "account remove", "trace",
            "queue list", "queue show", "queue retry", "queue drop", "inspect", "sign", "verify", "keys new", "keys list",
            "keys show", "keys import", "keys export", "keys trust", "keys distrust", "keys passphrase", "keys revoke",
            "encrypt", "decrypt", "send", "listen",
        }  # fmt: skip

    @pytest.mark.parametrize(
        "arguments", [["nonsense"], ["account"], ["account", "add"], ["serve", "--nonsense"], ["init", "x"]]
    )
    def test_wrong_use_is_exit_code_2(self, arguments: list[str]) -> None:
        assert comity(*arguments).exit_code == 2

    def test_python_m_comity_is_the_same_program(self) -> None:
        done = process("--version")
        assert done.returncode == 0
        assert done.stdout.startswith("comity, version")


def process(*arguments: str | Path, stdin: str = "", home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)} | ({"COMITY_HOME": str(home)} if home else {})
    command = [sys.executable, "-m", "comity", *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=environment, check=False, timeout=30
    )


class TestInit:
    def test_it_says_the_next_steps_and_they_work(self, tmp_path: Path) -> None:
        result = comity("init", tmp_path / "house", "--domain", "example.org")
        steps = [line.strip() for line in result.output.splitlines() if line.startswith("  comity ")]
        assert [step.split()[1] for step in steps] == ["config", "account", "serve"]
        assert comity(*steps[0].split()[1:]).exit_code == 0
        assert comity(*steps[1].split()[1:], "--password-stdin", stdin="secret\n").exit_code == 0

    def test_a_second_init_changes_nothing(self, house: Path) -> None:
        before = house.read_bytes()
        result = comity("init", house.parent, "--domain", "example.net")
        assert result.exit_code == 2
        assert "already there; nothing was changed" in result.output
        assert house.read_bytes() == before

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (["--domain", "exa mple"], "is not a domain"),
            (["--domain", "192.0.2.1"], "is an IP address"),
            (["--domain", "example.org", "--lan", "192.168.1.1/24"], "Write it like 192.168.1.0/24"),
            (["--domain", "example.org", "--lan", "0.0.0.0/0"], "the whole Internet"),
            ([], "--domain example.org"),
        ],
    )
    def test_wrong_options_make_nothing(self, tmp_path: Path, options: list[str], sentence: str) -> None:
        result = comity("init", tmp_path / "house", *options)
        assert result.exit_code == 2
        assert sentence in " ".join(result.output.split())
        assert not (tmp_path / "house").exists()

    def test_certificates_alone_for_a_file_written_by_hand(self, tmp_path: Path) -> None:
        (tmp_path / "comity.toml").write_text('[server]\ndomains = ["example.org"]\n')
        assert comity("config", "check", "-c", tmp_path / "comity.toml").exit_code == 2
        assert comity("init", tmp_path, "--certificates").exit_code == 0
        assert comity("config", "check", "-c", tmp_path / "comity.toml").exit_code == 0

    def test_json_lists_what_was_made(self, tmp_path: Path) -> None:
        made = json.loads(comity("init", tmp_path / "h", "--domain", "example.org", "--json").output)
        assert all(stat.S_IMODE(Path(path).stat().st_mode) == 0o600 for path in made["files"])

    def test_a_directory_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        result = comity("init", tmp_path / "file/house", "--domain", "example.org")
        assert result.exit_code == 2
        assert "cannot be written" in result.output


class TestConfigCheck:
    def test_mistakes_are_lines_on_stderr(self, house: Path) -> None:
        house.write_text('[server]\ndomains = ["example.org"]\n[sip]\nlisten = ["udp://0.0.0.0"]\n[limits]\nhop = 1\n')
        result = comity("config", "check", "-c", house)
        assert result.exit_code == 2
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        assert lines[0].startswith(f"{house}:6: limits.hop: ")
        assert lines[1].startswith(f"{house}:4: sip.listen[0]: ")

    def test_json_is_a_list_of_mistakes(self, house: Path) -> None:
        assert json.loads(comity("config", "check", "-c", house, "--json").output) == []
        house.write_text("[server]\n")
        result = comity("config", "check", "-c", house, "--json")
        assert result.exit_code == 2
        assert json.loads(result.stdout)[0].keys() == {"key", "problem", "cure", "where"}

    @pytest.mark.parametrize("command", [["account", "list"], ["queue", "list"], ["trace", "x"], ["serve"]])
    def test_every_command_names_the_mistakes_of_the_file(self, house: Path, command: list[str]) -> None:
        house.write_text("[server]\ndomains = 5\n")
        result = comity(*command, "-c", house)
        assert result.exit_code == 2
        assert f"comity: {house}:2: server.domains: " in result.stderr
        assert result.stdout == ""


class TestAccounts:
    def test_an_account_from_beginning_to_end(self, house: Path) -> None:
        c = ("-c", house)
        added = comity("account", "add", "alice@example.org", "--password-stdin", *c, stdin="secret\n")
        assert (added.exit_code, added.stdout) == (0, "alice@example.org was added.\n")
        assert comity("account", "add", "alice@example.org", "--password-stdin", *c, stdin="secret").exit_code == 1
        changed = comity("account", "password", "alice@example.org", "--sip", "--password-stdin", *c, stdin="two\n")
        assert (changed.exit_code, changed.stdout) == (0, "The SIP password of alice@example.org was changed.\n")
        listed = json.loads(comity("account", "list", "--json", *c).stdout)
        assert [(a["address"], a["own_sip_password"]) for a in listed] == [("alice@example.org", True)]
        assert "of its own" in comity("account", "list", *c).stdout
        removed = comity("account", "remove", "alice@example.org", *c)
        assert (removed.exit_code, removed.stdout) == (0, "alice@example.org was removed.\n")
        assert comity("account", "list", *c).stdout == "There is no account.\n"
        assert comity("account", "remove", "alice@example.org", *c).exit_code == 1

    def test_the_password_is_asked_for_twice(self, house: Path) -> None:
        result = comity("account", "add", "alice@example.org", "-c", house, stdin="one\ntwo\none\none\n")
        assert result.exit_code == 0
        assert "one" not in result.stdout.replace("one was", "")

    @pytest.mark.parametrize(
        ("address", "password", "exit_code", "sentence"),
        [
            ("alice@example.net", b"x", 2, "is not served here"),
            ("alice", b"x", 2, "Write it as alice@example.org"),
            ("alice@example.org", b"", 2, "The password is empty"),
            ("alice@example.org", b"\xff", 2, "is not UTF-8"),
            ("alice@example.org", b"a\tb", 2, "control character"),
            ("comity@example.org", b"x", 2, "is reserved"),
        ],
    )
    def test_refusals_are_sentences(
        self, house: Path, address: str, password: bytes, exit_code: int, sentence: str
    ) -> None:
        result = comity("account", "add", address, "--password-stdin", "-c", house, stdin=password)
        assert (result.exit_code, result.stdout) == (exit_code, "")
        assert result.stderr.startswith("comity: ")
        assert sentence in result.stderr

    def test_no_password_is_in_the_store_or_the_output(self, house: Path) -> None:
        """B-02, I12: a canary is looked for in every file of the data directory."""
        canary = "canary-7f3a"
        result = comity("account", "add", "alice@example.org", "--password-stdin", "-c", house, stdin=canary)
        assert result.exit_code == 0
        assert canary not in result.output
        files = [path for path in house.parent.rglob("*") if path.is_file()]
        assert any(path.name == "comity.db" for path in files)
        assert not [path for path in files if canary.encode() in path.read_bytes()]

    def test_a_damaged_database_is_said_and_left_alone(self, house: Path) -> None:
        assert comity("account", "list", "-c", house).exit_code == 0
        database = house.parent / "data/comity.db"
        octets = bytearray(database.read_bytes())
        octets[:100] = bytes(100)
        database.write_bytes(octets)
        result = comity("account", "list", "-c", house)
        assert result.exit_code == 2
        assert "is damaged" in result.stderr
        assert "Nothing was changed" in result.stderr
        assert database.read_bytes() == bytes(octets)

    def test_an_expired_certificate_does_not_lock_the_administrator_out(self, house: Path) -> None:
        (house.parent / "data/tls/server.pem").write_text("gone")
        assert comity("account", "list", "-c", house).exit_code == 0


class TestQueues:
    def test_unknown_names_are_exit_code_1(self, house: Path) -> None:
        for command in (["trace", "ffffffff"], ["queue", "show", "x"], ["queue", "drop", "x"], ["queue", "retry", "x"]):
            result = comity(*command, "-c", house)
            assert (result.exit_code, result.stdout) == (1, ""), command
            assert result.stderr.startswith("comity: N")
        assert comity("queue", "list", "-c", house).stdout == "Nothing waits.\n"
        assert comity("queue", "list", "-c", house, "--json").stdout == "[]\n"

    def test_what_waits_is_shown_traced_and_dropped(self, house: Path) -> None:
        @in_loop
        async def fill() -> None:
            from comity.service.interfaces import Add, Record

            store = await SqliteStore.open(read(house).server.data, min_free=0)
            record = Record("id-1", "inbox/im:alice@example.org", b"octets", b"", "ab" * 32, store.time() + 99)
            await store.commit([Add(record)])
            await store.close()

        fill()
        c = ("-c", house)
        assert json.loads(comity("queue", "list", "--json", *c).stdout)[0]["pending"] == 1
        assert "id-1" in comity("queue", "show", "alice@example.org", *c).stdout
        step = json.loads(comity("trace", "abababab", "--json", *c).stdout)[0]
        assert list(step)[:6] == ["node", "in", "out", "time", "sha256", "outcome"]
        assert comity("queue", "drop", "id-1", *c).stdout == "id-1 was dropped from inbox/im:alice@example.org.\n"
        assert "Dropped by the operator" in comity("trace", "id-1", *c).stdout


def test_text_from_elsewhere_cannot_write_to_the_terminal() -> None:
    """W-12."""
    assert printable("a\x1b[2Jb\r\nc\u202ed\u200b") == "a\\u001b[2Jb\\u000d\\u000ac\\u202ed\\u200b"


# --- serve ------------------------------------------------------------------------------------------------------------

#: A server that does nothing, in a process that is real: what is tested here is the process.
FAKE = """
import sys, types
from comity.errors import ConfigError, StoreDamaged
class Server:
    addresses = ["udp://127.0.0.1:5060", "tls://127.0.0.1:5061"]
    def __init__(self, config): self.config = config
    async def start(self):
        {start}
    async def reload(self, config): print("reloaded", config.server.domains, flush=True)
    async def stop(self): print("stopped", flush=True)
sys.modules["comity.server"] = types.SimpleNamespace(Server=Server)
from comity.cli import main
main()
"""


class Serving:
    def __init__(self, config: Path, *options: str | Path, start: str = "pass", prefix: Sequence[str] = ()) -> None:
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"}
        command = [
            *prefix,
            sys.executable,
            "-c",
            FAKE.format(start=start),
            "serve",
            "-c",
            str(config),
            *map(str, options),
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Serving:
        return self

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().rstrip("\n")

    def error_line(self) -> str:
        assert self.process.stderr
        return self.process.stderr.readline().rstrip("\n")

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err

    def __exit__(self, *_: Any) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class TestServe:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_says_ready_with_its_addresses_and_stops_in_order(
        self, house: Path, tmp_path: Path, number: signal.Signals
    ) -> None:
        pidfile = tmp_path / "comity.pid"
        with Serving(house, "--pidfile", pidfile) as server:
            assert server.line() == "comity: ready udp://127.0.0.1:5060 tls://127.0.0.1:5061"
            assert pidfile.read_text() == f"{server.process.pid}\n"
            server.process.send_signal(number)
            code, out, err = server.end()
        assert (code, out) == (0, "stopped\n")
        assert "comity: draining" in err
        assert not pidfile.exists()

    def test_sighup_reads_the_file_anew_or_keeps_the_former(self, house: Path) -> None:
        """F-K20."""
        with Serving(house) as server:
            server.line()
            text = house.read_text()
            house.write_text(text + "\n[nonsense]\n")
            server.process.send_signal(signal.SIGHUP)
            line = server.error_line()
            assert "ERROR comity.cli.server: not reloaded, what was in use stays in use: " in line
            assert "nonsense: is not a section" in line
            house.write_text(text)
            server.process.send_signal(signal.SIGHUP)
            assert server.line() == "reloaded ('example.org',)"
            server.process.send_signal(signal.SIGTERM)
            assert server.end()[0] == 0

    @pytest.mark.parametrize(
        ("start", "sentence"),
        [
            (
                'raise ConfigError("udp://127.0.0.1:5060", "port 5060 is already taken by kamailio (process 7).")',
                "kamailio",
            ),
            ('raise StoreDamaged("/x/comity.db", "it is cut off", "Put the newest backup back.")', "newest backup"),
            ('raise OSError(28, "No space left on device")', "No space left on device"),
        ],
    )
    def test_what_keeps_it_from_starting_is_a_sentence(
        self, house: Path, tmp_path: Path, start: str, sentence: str
    ) -> None:
        pidfile = tmp_path / "comity.pid"
        with Serving(house, "--pidfile", pidfile, start=start) as server:
            code, out, err = server.end()
        assert code == 2
        assert "ready" not in out
        assert "Traceback" not in err
        assert sentence in err
        assert not pidfile.exists()

    def test_the_ready_line_can_be_json(self, house: Path) -> None:
        with Serving(house, "--json") as server:
            assert json.loads(server.line()) == {"ready": ["udp://127.0.0.1:5060", "tls://127.0.0.1:5061"]}

    def test_a_wrong_configuration_never_reaches_the_server(self, house: Path) -> None:
        house.write_text("[server]\n")
        done = process("serve", "-c", house)
        assert done.returncode == 2
        assert "server.domains: is missing." in done.stderr

    def test_it_may_open_as_many_files_as_the_system_allows_and_says_if_that_is_too_few(self, house: Path) -> None:
        """F-09."""
        start = "import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)"
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with Serving(house, start=start, prefix=["prlimit", f"--nofile=256:{hard}"]) as server:
            assert server.line() == f"{hard} {hard}"
        with Serving(house, start=start, prefix=["prlimit", "--nofile=256:256"]) as server:
            assert server.line() == "256 256"
            assert "may open 256 files, but [limits] connections = 20000 needs 20256" in server.error_line()

    def test_it_leaves_no_core_and_no_readable_file(self, house: Path, tmp_path: Path) -> None:
        """B-02, reliability.md section 6.1 items 10 and 14."""
        start = "import os, resource; print(oct(os.umask(0o77)), resource.getrlimit(resource.RLIMIT_CORE), flush=True)"
        with Serving(house, start=start) as server:
            assert server.line() == "0o77 (0, 0)"
            server.process.send_signal(signal.SIGTERM)
            server.end()
