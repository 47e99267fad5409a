"""The page of mode 3 tells the truth: its files are written and its commands run, with the real Kamailio (design.md section 5)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from comity.admin.init import init_certificates
from comity.config import load
from tests.interop.presence_servers import wait_for
from tests.interop.program import Program, free_port
from tests.peers import need_program

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "howto" / "beside-a-sip-server.md"
PATIENCE = 30.0
FILES = {"cfg": "kamailio.cfg", "ini": "tls.cfg"}


@dataclass
class Step:
    """A file to write, or a command and what is shown under it."""

    command: str = ""
    file: str = ""
    text: str = ""
    shown: list[str] = field(default_factory=list)


def steps(text: str) -> list[Step]:
    """What a reader does up to the end of "Try it"."""
    text = text.partition("## When both sides")[0]
    found: list[Step] = []
    for block in re.finditer(r"```(\w+)\n(.*?)```|^    ([^\n]*)$", text, re.DOTALL | re.MULTILINE):
        kind, body, line = block.groups()
        if kind:
            found.append(Step(file=FILES.get(kind, "home/comity.toml"), text=body))
        elif line.startswith("$ "):
            found.append(Step(command=line[2:]))
        else:
            found[-1].shown.append(line)
    return found


class Reader:
    """Somebody who does what the page says, at ports that are free."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = [free_port() for _ in range(4)]
        self.places = {
            "192.0.2.10:5060": f"127.0.0.2:{ports[0]}",
            "192.0.2.10:5061": f"127.0.0.2:{ports[1]}",
            "192.0.2.20:5061": f"127.0.0.1:{ports[2]}",
            "localhost:5223": f"localhost:{ports[3]}",
        }
        self._xmpp = f'\n[xmpp]\nclient = ["tls://127.0.0.1:{ports[3]}"]\n'
        self._phones = ports[0]
        self.env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COMITY_HOME": str(folder / "keys")}
        self.running: list[Program] = []
        self._stack = ExitStack()

    def close(self) -> None:
        for program in reversed(self.running):
            program.stop()

    def _placed(self, text: str) -> str:
        for place, ours in self.places.items():
            text = text.replace(place, ours)
        return text

    def write(self, name: str, text: str) -> None:
        more = self._xmpp if name.endswith(".toml") else ""
        (self.folder / name).write_text(self._placed(text) + more, encoding="utf-8")

    def run(self, step: Step) -> None:
        command = self._placed(step.command)
        if command == "wait":
            self._wait(step)
        elif command.endswith(" &"):
            self._begin(command.removesuffix(" &"), step)
        else:
            python = f"{sys.executable} -m comity"
            done = subprocess.run(
                ["sh", "-c", re.sub("^comity", python, command)],
                cwd=self.folder,
                env=self.env,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}\n{self.said()}"

    def _begin(self, command: str, step: Step) -> None:
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)]
        name = words[0]
        argv = [sys.executable, "-m", *words] if name == "comity" else [need_program(name), "-m", "64", *words[1:]]
        program = Program(name, argv, self.folder, terminal=False, env={**self.env, "PYTHONUNBUFFERED": "1"})
        self.running.append(program)
        if name == "kamailio":
            wait_for(program, self._phones, "127.0.0.2")
        elif words[1] == "listen":
            program.wait_output("listening as")
        for line in step.shown:
            program.wait_until(lambda line=line: re.search(pattern(line), program.output), line)  # type: ignore[misc]  # a default binds it

    def _wait(self, step: Step) -> None:
        program = self.running[-1]
        for line in step.shown:
            # Its last word may be read after its end.
            deadline = time.monotonic() + PATIENCE
            while not re.search(pattern(line), program.output):
                assert time.monotonic() < deadline, f"{line}: {program.output}\n{self.said()}"
                time.sleep(0.05)  # a poll of another process, with a deadline

    def said(self) -> str:
        return "\n".join(f"{program.name}: {program.output[-2000:]}" for program in self.running)


def pattern(line: str) -> str:
    return re.escape(line).replace("…", ".*")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    one = Reader(tmp_path)
    yield one
    one.close()


def test_who_does_what_the_page_says_joins_the_two(reader: Reader) -> None:
    """From nothing to a message each way."""
    need_program("kamailio")
    need_program("tls.so")
    (reader.folder / "juliet.password").write_text("juliet likes long passphrases\n")
    (reader.folder / "phone.password").write_text("a phone's password\n")
    done = steps(PAGE.read_text(encoding="utf-8"))
    assert sum(step.command == "wait" for step in done) == 2
    for step in done:
        if step.file:
            reader.write(step.file, step.text)
        else:
            reader.run(step)


def test_every_other_file_of_the_page_is_good(tmp_path: Path) -> None:
    """Each block alone, with what the first one says."""
    init_certificates(tmp_path / "data", ["chat.example.org", "example.org"])
    (tmp_path / "trunk.password").write_text("secret\n")
    ca = (tmp_path / "data" / "tls" / "ca.pem").read_bytes()
    (tmp_path / "pbx.pem").write_bytes(ca)
    text = PAGE.read_text(encoding="utf-8").partition("## When both sides")[2]
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        server = "" if "[server]" in block else '[server]\ndomains = ["chat.example.org"]\n'
        trust = '[tls]\ntrust = "pbx.pem"\n'
        sip = "" if "[sip]" in block else '[sip]\nlisten = ["tls://127.0.0.1:0"]\n'
        file = tmp_path / "comity.toml"
        file.write_text(server + trust + sip + block.replace("192.0.2.20", "127.0.0.1"), encoding="utf-8")
        config = load(file)
        assert config.routes
        assert [rule.on for rule in config.maps] == [config.routes[0].domain] * block.count("[[map]]")
