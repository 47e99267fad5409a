"""XCAP of the real program: ``comity serve`` with ``[xcap]``, curl on one side and an XMPP program (slixmpp) on the other."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from comity.demo.stage import DOMAIN, Stage
from tests.loop import in_loop

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "howto" / "presence-rules-and-lists-by-xcap.md"
PATIENCE = 20.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class House:
    """A stage with alice and bob, and a listener for XCAP."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.port = free_port()

    async def open(self) -> House:
        await self.stage.build()
        text = self.stage.house.config.read_text(encoding="utf-8")
        written = f'\n[xcap]\nlisten = ["https://127.0.0.1:{self.port}"]\n'
        self.stage.house.config.write_text(
            re.sub(r"\n# \[xcap\]\n# listen[^\n]*\n", "\n", text) + written, encoding="utf-8"
        )
        for name in ("alice", "bob"):
            await self.stage.settle(self.stage.people[name], has_key=False)
        ready = await self.stage.serve()
        assert f"https://127.0.0.1:{self.port}" in ready
        return self

    async def curl(self, *arguments: str, name: str = "alice") -> tuple[int, str]:
        """curl with the person's password: status and body."""
        program = shutil.which("curl")
        assert program, "curl is among the packages of the test environment"
        person = self.stage.people[name]
        process = await asyncio.create_subprocess_exec(
            program,
            *("--silent", "--show-error", "--cacert", str(self.stage.house.ca_file)),
            *("--connect-to", f"{DOMAIN}:8444:127.0.0.1:{self.port}"),
            *("--digest", "--user", f"{name}:{person.password}", "--write-out", "%{stderr}%{http_code}"),
            *arguments,
            cwd=self.stage.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err
        return int(err), out.decode()

    @asynccontextmanager
    async def roster(self, name: str = "alice") -> AsyncIterator[Roster]:
        """The person's XMPP program, signed in."""
        person = self.stage.people[name]
        settings = {
            "jid": f"{name}@{DOMAIN}/desk",
            "password": person.password,
            "port": self.stage.house.ports["xmpp", "tls"],
            "ca_file": str(self.stage.house.ca_file),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.xcap.roster_client", json.dumps(settings)),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield Roster(process)
        finally:
            process.kill()
            await process.communicate()


class Roster:
    """What an XMPP program says of its contact list."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def until(self, expected: dict[str, list[Any]]) -> None:
        """Wait for this contact list; what it said before is shown if it never comes."""
        assert self._process.stdout is not None
        said = []
        try:
            async with asyncio.timeout(PATIENCE):
                while line := await self._process.stdout.readline():
                    said.append(json.loads(line))
                    if said[-1] == expected:
                        return
        except TimeoutError:
            pass
        raise AssertionError(f"expected {expected}, was told {said}")

    async def order(self, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await self._process.stdin.drain()


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    async with Stage(folder) as stage:
        yield await House(stage).open()


def url(auid: str, node: str = "", name: str = "alice") -> str:
    return f"https://{DOMAIN}:8444/{auid}/users/sip:{name}@{DOMAIN}/index{node and '/~~/' + node}"


LISTS = ("--header", "Content-Type: application/resource-lists+xml")
ENTRY = ("--header", "Content-Type: application/xcap-el+xml")


@in_loop
async def test_one_contact_list_by_xcap_and_by_xmpp(tmp_path: Path) -> None:
    """What one side puts the other is told of, over a restart too."""
    async with house(tmp_path) as one:
        async with one.roster() as roster:
            await roster.until({})
            document = (
                "<resource-lists xmlns='urn:ietf:params:xml:ns:resource-lists'><list name='Friends'>\n"
                f"  <entry uri='sip:bob@{DOMAIN}'><display-name>Bob</display-name></entry>\n</list></resource-lists>"
            )
            (tmp_path / "friends.xml").write_text(document)
            put = await one.curl(*LISTS, "--upload-file", "friends.xml", url("resource-lists"))
            assert put == (201, "")
            await roster.until({f"bob@{DOMAIN}": ["Bob", ["Friends"]]})
            await roster.order(do="put", jid=f"carol@{DOMAIN}", name="Carol", groups=["Friends"])
            await roster.until({f"bob@{DOMAIN}": ["Bob", ["Friends"]], f"carol@{DOMAIN}": ["Carol", ["Friends"]]})
            carol = f'<entry uri="sip:carol@{DOMAIN}"><display-name>Carol</display-name></entry>'
            expected = document.replace("</entry>", f"</entry>{carol}")
            assert await one.curl(url("resource-lists")) == (200, expected)
            entry = url("resource-lists", f"resource-lists/list/entry%5b@uri='sip:bob@{DOMAIN}'%5d")
            assert (await one.curl("--request", "DELETE", entry))[0] == 200
            await roster.until({f"carol@{DOMAIN}": ["Carol", ["Friends"]]})
        server = one.stage.servers[DOMAIN]
        assert server is not None
        await server.end(signal.SIGKILL)
        await one.stage.serve()
        async with one.roster() as roster:
            await roster.until({f"carol@{DOMAIN}": ["Carol", ["Friends"]]})
            await roster.order(do="remove", jid=f"carol@{DOMAIN}")
            await roster.until({})
            status, now = await one.curl(url("resource-lists"))
            assert (status, "<entry" in now, "<list name='Friends'>" in now) == (200, False, True)


@in_loop
async def test_nobody_gets_at_anothers_documents(tmp_path: Path) -> None:
    """ACL-20."""
    async with house(tmp_path) as one:
        assert (await one.curl(url("pres-rules", name="bob")))[0] == 403
        assert (await one.curl(url("pres-rules", name="nobody")))[0] == 403
        assert (await one.curl(url("pres-rules")))[0] == 404
        assert (await one.curl("--user", "alice:wrong", url("pres-rules")))[0] == 401


# --- the how-to page --------------------------------------------------------------------------------------------


def blocks(text: str) -> list[tuple[str, list[str]]]:
    """(command, what is shown under it) of the page, and files shown under their names: ("file NAME", lines)."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        prompt = re.match(r"    alice\$ (.*)", line)
        named = re.match(r"`([\w.-]+)`:$", line)
        if prompt:
            found.append((prompt[1], []))
        elif named:
            found.append((f"file {named[1]}", []))
        elif line.startswith("    ") and found:
            found[-1][1].append(line[4:])
    return found


def test_the_page_has_its_commands_and_files() -> None:
    commands = [command for command, _ in blocks(PAGE.read_text(encoding="utf-8"))]
    assert sum(command.startswith("curl ") for command in commands) >= 6
    assert sum(command.startswith("file ") for command in commands) >= 2


@in_loop
async def test_every_command_of_the_how_to_page_does_what_it_says(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        for command, shown in blocks(PAGE.read_text(encoding="utf-8").replace("example.org", DOMAIN)):
            kind, _, rest = command.partition(" ")
            if kind == "file":
                (tmp_path / rest).write_text("\n".join(shown) + "\n", encoding="utf-8")
                continue
            arguments = shlex.split(rest)
            assert kind == "curl"
            assert arguments[:4] == ["--digest", "--user", "alice", "--cacert"], command
            is_status = "--write-out" in arguments
            arguments = [a for a in arguments[5:] if a not in ("--write-out", r"%{http_code}\n")]
            status, said = await one.curl(*arguments)
            expected = "\n".join(shown)
            if is_status:
                assert (str(status), said) == (expected, ""), command
            else:
                assert said.rstrip("\n") == expected, command
