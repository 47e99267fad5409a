"""The page of mode 4 tells the truth: its files are written and its commands run, with a stock name server (design.md section 5)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.interop.program import Program, free_port
from tests.peers import need_program

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "howto" / "federation.md"
PLACES = (
    *("192.0.2.10:5061", "192.0.2.10:5223", "192.0.2.10:5269", "192.0.2.10:5270"),
    *("192.0.2.20:5061", "192.0.2.20:5223", "192.0.2.20:5269", "192.0.2.20:5270"),
    *("192.0.2.30:5222", "192.0.2.30:5269"),
)
HOSTS = {"192.0.2.10": "127.0.0.1", "192.0.2.20": "127.0.0.2", "192.0.2.30": "127.0.0.3"}


@dataclass
class Step:
    """A file to write, or a command and what is shown under it."""

    command: str = ""
    file: str = ""
    text: str = ""
    shown: list[str] = field(default_factory=list)


def steps(text: str) -> list[Step]:
    """What a reader does up to the end of "Try it": a file names itself in its first line."""
    text = text.partition("## How a domain is found")[0]
    found: list[Step] = []
    for block in re.finditer(r"```\w+\n(?:[#;]|--) (\S+)\n(.*?)```|^    (\S[^\n]*)$", text, re.DOTALL | re.MULTILINE):
        name, body, line = block.groups()
        if name:
            found.append(Step(file=name, text=body))
        elif line.startswith("$ "):
            found.append(Step(command=line[2:]))
        else:
            found[-1].shown.append(line)
    return found


class Reader:
    """Somebody who does what the page says, at addresses of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = free_port()
        self.places = {
            "192.0.2.53:53": f"127.0.0.1:{names}",
            "192.0.2.53@53": f"127.0.0.1@{names}",
            "192.0.2.0/24": "127.0.0.0/8",
        }
        for place in PLACES:
            self.places[place] = f"{HOSTS[place.partition(':')[0]]}:{free_port()}"
        self.places |= {
            "SRV 0 0 5061 a": f"SRV 0 0 {self.port('192.0.2.10:5061')} a",
            "SRV 0 0 5269 c": f"SRV 0 0 {self.port('192.0.2.30:5269')} c",
            "{ 5222 }": f"{{ {self.port('192.0.2.30:5222')} }}",
            "{ 5269 }": f"{{ {self.port('192.0.2.30:5269')} }}",
            **HOSTS,
        }
        self.env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COMITY_HOME": str(folder / "keys")}
        self.running: list[Program] = []

    def close(self) -> None:
        for program in reversed(self.running):
            program.stop()

    def placed(self, text: str) -> str:
        for place, ours in self.places.items():
            text = text.replace(place, ours)
        return text

    def port(self, place: str) -> str:
        """The port that stands for one of the page's."""
        return self.places[place].partition(":")[2]

    def do(self, step: Step) -> None:
        if step.file:
            (self.folder / step.file).write_text(self.placed(step.text), encoding="utf-8")
            return
        command = self.placed(step.command)
        shown = [self.placed(line) for line in step.shown]
        if command == "wait":
            self._wait(self.running[-1], shown)
        elif command.endswith(" &"):
            self._begin(command.removesuffix(" &").split(), shown)
        else:
            self._run(command, shown)

    def _run(self, command: str, shown: list[str]) -> None:
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
        for line in shown:
            assert re.search(pattern(line), done.stdout), f"{command}\nshown: {line}\nsaid: {done.stdout}"

    def _begin(self, words: list[str], shown: list[str]) -> None:
        name = words[0]
        argv = [sys.executable, "-m", *words] if name == "comity" else [need_program(name), *words[1:]]
        program = Program(name, argv, self.folder, terminal=False, env={**self.env, "PYTHONUNBUFFERED": "1"})
        self.running.append(program)
        if name in ("nsd", "prosody"):
            shown = [{"nsd": "nsd started", "prosody": "Activated service 's2s'"}[name]]
        self._wait(program, ["listening as"] if words[1] == "listen" else shown)

    def _wait(self, program: Program, shown: list[str]) -> None:
        for line in shown:
            program.wait_until(lambda line=line: re.search(pattern(line), program.output), line)  # type: ignore[misc]  # a default binds it

    def said(self) -> str:
        return "\n".join(f"{program.name}: {program.output[-2000:]}" for program in self.running)


def pattern(line: str) -> str:
    return re.escape(line).replace("…", ".*")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    one = Reader(tmp_path)
    yield one
    one.close()


def test_who_does_what_the_page_says_reaches_the_other_domain(reader: Reader) -> None:
    """From nothing to a message each way, found by DNS alone."""
    for program in ("nsd", "prosody", "lunbound.so", "openssl"):
        need_program(program)
    for name in ("alice", "bob", "carol"):
        (reader.folder / f"{name}.password").write_text(f"{name} likes long passphrases\n")
    done = steps(PAGE.read_text(encoding="utf-8"))
    assert sum(step.command == "wait" for step in done) == 4
    files = {"a/comity.toml", "b/comity.toml", "prosody.cfg.lua", "example.zone", "nsd.conf"}
    assert {step.file for step in done if step.file} == files
    for step in done:
        reader.do(step)
