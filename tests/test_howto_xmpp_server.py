"""The page of mode 2 tells the truth: its files are written and its commands run, with the real Prosody and the real ejabberd."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from comity.config import read
from tests.interop.presence_servers import wait_for
from tests.interop.program import Program, free_port
from tests.peers import need_program
from tests.test_howto_federation import Reader, Step

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "howto" / "beside-an-xmpp-server.md"
PORTS = ("5061", "5222", "5269", "5347")
SAYS = {"prosody": "Activated service 'component'"}


def steps(text: str) -> list[Step]:
    """What a reader does up to the end of "Try it": a file names itself in its first line."""
    text = text.partition("## What holds")[0]
    found: list[Step] = []
    for block in re.finditer(r"```\w+\n(?:#|--) (\S+)\n(.*?)```|^    (\S[^\n]*)$", text, re.DOTALL | re.MULTILINE):
        name, body, line = block.groups()
        if name:
            found.append(Step(file=name, text=body))
        elif line.startswith("$ "):
            found.append(Step(command=line[2:]))
        else:
            found[-1].shown.append(line)
    return found


class Neighbour(Reader):
    """Somebody who does what the page says, at ports that are free, with one of the two servers."""

    def __init__(self, folder: Path, server: str) -> None:
        super().__init__(folder)
        self.server = server
        ours = {port: str(free_port()) for port in PORTS}
        self.ports = ours
        self.places = {f"127.0.0.1:{port}": f"127.0.0.1:{ours[port]}" for port in PORTS}
        self.places |= {f"{{ {port} }}": f"{{ {ours[port]} }}" for port in PORTS}
        self.places |= {f"port: {port}": f"port: {ours[port]}" for port in PORTS}
        self.places |= {f"port = {port}": f"port = {ours[port]}" for port in PORTS}

    def do(self, step: Step) -> None:
        is_other = step.command.startswith("prosody") or step.file == "prosody.cfg.lua"
        if self.server == "prosody" or not is_other:
            super().do(step)
        elif step.command.endswith("&"):
            self._start_ejabberd()

    def _begin(self, words: list[str], shown: list[str]) -> None:
        if words[0] != "prosody":
            super()._begin(words, shown)
            return
        program = Program("prosody", [need_program("prosody"), *words[1:]], self.folder, terminal=False, env=self.env)
        self.running.append(program)
        self._wait(program, [SAYS["prosody"]])

    def _start_ejabberd(self) -> None:
        """As Debian's own service does, with the files in a folder of the test."""
        folder = self.folder
        both = (folder / "chat.pem").read_text() + (folder / "chat.key").read_text()
        (folder / "both.pem").write_text(both)
        config = folder / "ejabberd.yml"
        config.write_text(config.read_text().replace("both.pem", str(folder / "both.pem")))
        for name in ("log", "spool"):
            (folder / name).mkdir()
        environment = {
            **self.env,
            "EJABBERD_CONFIG_PATH": str(config),
            "EJABBERD_LOG_PATH": str(folder / "log" / "ejabberd.log"),
            "ERL_LIBS": ":".join(str(path.parent) for path in Path("/usr/lib").glob("*/ejabberd-*")),
            "ERL_CRASH_DUMP_SECONDS": "0",
        }
        account = ", ".join(f'<<"{word}">>' for word in ("romeo", "example.org", "romeo likes long passphrases"))
        argv = [need_program("erl"), "-noinput", "-mnesia", "dir", f'"{folder / "spool"}"', "-s", "ejabberd"]
        argv += ["-eval", f"ejabberd_auth:try_register({account})."]
        program = Program("ejabberd", argv, folder / "home-of-ejabberd", terminal=False, env=environment)
        self.running.append(program)
        for port in ("5222", "5347"):
            wait_for(program, int(self.ports[port]))


@pytest.fixture(params=["prosody", "ejabberd"])
def neighbour(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Neighbour]:
    one = Neighbour(tmp_path, request.param)
    yield one
    one.close()


def test_who_does_what_the_page_says_reaches_the_other_side(neighbour: Neighbour) -> None:
    """From nothing to a message each way (design.md section 5, mode 2)."""
    for program in ("prosody", "openssl") if neighbour.server == "prosody" else ("ejabberdctl", "openssl"):
        need_program(program)
    for name in ("dave", "romeo"):
        (neighbour.folder / f"{name}.password").write_text(f"{name} likes long passphrases\n")
    done = steps(PAGE.read_text(encoding="utf-8"))
    assert sum(step.command == "wait" for step in done) == 2
    assert {step.file for step in done if step.file} == {"home/comity.toml", "prosody.cfg.lua", "ejabberd.yml"}
    for step in done:
        neighbour.do(step)


def test_what_else_the_page_shows_is_configuration(tmp_path: Path) -> None:
    """Its other pieces of comity.toml are read as they stand."""
    rest = PAGE.read_text(encoding="utf-8").partition("## What holds")[2]
    pieces = re.findall(r"```toml\n(.*?)```", rest, re.DOTALL)
    assert len(pieces) == 2
    for piece in pieces:
        assert tomllib.loads(piece)
        path = tmp_path / "comity.toml"
        path.write_text(f'[server]\ndomains = ["comity.example.org"]\n{piece}')
        assert read(path).server.domains == ("comity.example.org",)
