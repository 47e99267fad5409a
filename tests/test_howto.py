"""The how-to pages tell the truth: their commands are run, and what stands under each is what it says."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from comity.admin.init import init_certificates
from comity.config import load
from comity.demo.house import Transport, Via
from comity.demo.stage import DOMAIN, Person, Stage

SOURCE = Path(__file__).parent.parent / "src"
HOWTO = Path(__file__).parent.parent / "docs" / "howto"
NOISE = re.compile("comity: (listening as|watching) ")
PROMPT = re.compile(r"    (alice|bob)\$ comity (.*?)(?:\s+# exit code (\d))?$")


@dataclass
class Step:
    """One command of a page, and what is shown under it."""

    line: int
    who: str
    command: str
    exit_code: int
    shown: list[str] = field(default_factory=list)


def steps(text: str) -> list[Step]:
    """The commands of a page in their order."""
    found: list[Step] = []
    is_under = False
    for number, line in enumerate(text.splitlines(), 1):
        prompt = PROMPT.match(line)
        if prompt:
            found.append(Step(number, prompt[1], prompt[2], int(prompt[3] or 0)))
        elif is_under and line.startswith("    ") and line.strip():
            found[-1].shown.append(line[4:])
        is_under = bool(prompt) or (is_under and line.startswith("    "))
    return found


def pattern(shown: list[str]) -> str:
    """What is shown, as a regular expression: ``…`` is anything, alone on the last line any lines."""
    lines = [re.escape(line).replace("…", ".*") for line in shown]
    if shown and shown[-1].strip() == "…":
        lines[-1] = r"(?:.*\n?)*"
    return "\n".join(lines)


async def settle(stage: Stage, person: Person) -> None:
    """An account, and nothing else."""
    person.home.mkdir(mode=0o700)
    person.password_file.write_text(person.password + "\n")
    account = ("account", "add", person.address, "--password-stdin", "-c", str(stage.house.config))
    await stage.must(*account, stdin=person.password + "\n")


async def run(stage: Stage, person: Person, step: Step) -> str:
    """Run one command as its person, in the common directory; a server is named to what signs in."""
    arguments = shlex.split(step.command.replace("example.org", DOMAIN))
    if arguments[0] in ("send", "listen", "publish", "watch", "contacts"):
        via: Via = "sip" if "sip" in arguments else "apex" if "apex" in arguments else "xmpp"
        transport: Transport = "tls"
        options = [option for option in stage._sign_in(person, via, transport, None) if option != "--json"]
        arguments[1:1] = options
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "comity",
        *arguments,
        cwd=stage.folder,
        env={**os.environ, "COMITY_HOME": str(person.home), "PYTHONPATH": str(SOURCE)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    text = out.decode() + "".join(line + "\n" for line in err.decode().splitlines() if not NOISE.search(line))
    assert process.returncode == step.exit_code, f"line {step.line}: {step.command}: {process.returncode}\n{text}"
    return text.replace(DOMAIN, "example.org")


@pytest.mark.parametrize(
    "page", [page for page in sorted(HOWTO.glob("*.md")) if steps(page.read_text())], ids=lambda p: p.stem
)
def test_every_command_of_the_page_says_what_stands_under_it(page: Path, tmp_path: Path) -> None:
    commands = steps(page.read_text(encoding="utf-8"))

    async def story() -> None:
        async with Stage(tmp_path) as stage:
            await stage.build()
            for name in ("alice", "bob"):
                person = stage.people[name]
                await settle(stage, person)
                (tmp_path / f"{name}.pass").write_text(f"{name} likes long passphrases\n")
            await stage.serve()
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            (tmp_path / "letter.cpim").write_bytes(
                f"From: Alice <im:alice@{DOMAIN}>\r\nTo: Bob <im:bob@{DOMAIN}>\r\nDateTime: {stamp}\r\n\r\n"
                "Content-Type: text/plain; charset=utf-8\r\n\r\nNoon, at the bridge.\r\n".encode()
            )
            for step in commands:
                said = await run(stage, stage.people[step.who], step)
                if step.shown:
                    assert re.fullmatch(pattern(step.shown), said.rstrip("\n")), (
                        f"{page.name} line {step.line}: {step.command}\nshown: {step.shown}\nsaid:  {said}"
                    )

    asyncio.run(story())


@pytest.mark.parametrize("page", ["apex", "join-two-servers"])
def test_what_the_page_writes_into_the_file_is_good(page: str, tmp_path: Path) -> None:
    """All of it together, in a file made by nobody's hand."""
    init_certificates(tmp_path / "data", ["example.org"])
    (tmp_path / "authorities.pem").write_bytes((tmp_path / "data" / "tls" / "ca.pem").read_bytes())
    blocks = re.findall(r"```toml\n(.*?)```", (HOWTO / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    file = tmp_path / "comity.toml"
    file.write_text('[server]\ndomains = ["example.org"]\n' + "".join(blocks), encoding="utf-8")
    config = load(file)
    assert [route.via for route in config.routes] == re.findall(r'via = "(\w+)"', "".join(blocks))
    assert len(config.peers) == "".join(blocks).count("[[peer]]")


def test_a_page_that_lies_is_found() -> None:
    """The comparison itself: what is shown must be all that is said."""
    one = steps("    bob$ comity verify x    # exit code 1\n    verdict  valid\n\ntext\n    …\n")
    assert [(step.command, step.exit_code, step.shown) for step in one] == [("verify x", 1, ["verdict  valid"])]
    assert re.fullmatch(pattern(["a …", "…"]), "a b\nc\nd")
    assert not re.fullmatch(pattern(["a …"]), "a b\nc")
    assert not re.fullmatch(pattern(["verdict  valid"]), "verdict  changed")
