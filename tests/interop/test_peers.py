"""``scripts/peers`` installs what the tests need, and says what is missing."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.interop.catalogue import CLIENTS
from tests.peers import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "peers"


def table() -> dict[str, str]:
    """Program and package of each line of the script's table."""
    text = re.search(r"^peers='\n(.*?)^'", SCRIPT.read_text(), re.DOTALL | re.MULTILINE)
    assert text is not None
    return {line.split()[0]: line.split()[1] for line in text[1].splitlines()}


def run_without_programs(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the script as somebody who is not root on a machine with no peer at all."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("cut", "sort", "tr", "sed"):
        (tools / name).symlink_to(Path("/usr/bin") / name)
    (tools / "id").write_text("#!/bin/sh\necho 1000\n")
    (tools / "id").chmod(0o755)
    text = SCRIPT.read_text().replace('PATH="$PATH:/usr/sbin:/sbin"\n', "")
    assert text != SCRIPT.read_text()
    copy = tmp_path / "peers"
    copy.write_text(looking_in(tmp_path / "lib", text))
    return subprocess.run(
        ["/bin/sh", str(copy)], env={"PATH": str(tools), **env}, capture_output=True, text=True, timeout=20, check=False
    )


def looking_in(folder: Path, text: str) -> str:
    """The script with another place for shared libraries."""
    assert "\nlibraries=/usr/lib\n" in text
    return text.replace("\nlibraries=/usr/lib\n", f"\nlibraries={folder}\n")


def test_it_installs_every_client_and_every_program_a_test_needs() -> None:
    needed = {kind.program for kind in CLIENTS.values() if kind.program is not None}
    for test in (ROOT / "tests").rglob("*.py"):
        needed |= set(re.findall(r'need_program\("([\w-]+)"\)', test.read_text()))
    assert needed - set(table()) == set()


def test_it_and_the_reasons_of_skipped_tests_name_the_same_packages() -> None:
    clients = {kind.program for kind in CLIENTS.values()} - {None}
    assert {name: PACKAGES.get(name) for name in table() if name in PACKAGES or name in clients} == {
        name: package for name, package in table().items() if name in PACKAGES or name in clients
    }


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_without_root_it_says_what_is_not_tested_and_the_one_line_to_run(tmp_path: Path, ci: str, status: int) -> None:
    done = run_without_programs(tmp_path, CI=ci)
    assert done.returncode == status
    assert "NOT TESTED" in done.stderr
    assert "  - a stock XMPP client: mcabber\n" in done.stderr
    command = done.stderr.splitlines()[-1]
    assert command.startswith("As root, on Debian:  apt-get update && apt-get install -y --no-install-recommends ")
    assert set(command.rpartition("recommends ")[2].split()) == set(table().values())
    assert "sudo" not in SCRIPT.read_text().replace("Never calls sudo.", "")


def test_it_says_nothing_when_all_is_there(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    libraries = tmp_path / "lib" / "some-machine"
    libraries.mkdir(parents=True)
    for program in table():
        made = (libraries if ".so" in program else tools) / program
        made.write_text("#!/bin/sh\n")
        made.chmod(0o755)
    copy = tmp_path / "peers"
    copy.write_text(looking_in(tmp_path / "lib", SCRIPT.read_text()))
    done = subprocess.run(
        ["/bin/sh", str(copy)],
        env={"PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
