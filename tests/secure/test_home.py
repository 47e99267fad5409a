"""Files under COMITY_HOME: private from their first moment, whole or not at all (T30)."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure.home import MAX_FILE, Home, file_name
from comity.secure.own_keys import named


def test_a_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        written = Home(tmp_path / "home").write("keys", "x.pem", b"secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (written.parent, written.parent.parent)} == {0o700}


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (tmp_path / "keys" / "x.pem").mkdir(parents=True)
    with pytest.raises(SecurityError, match=r"x\.pem cannot be written"):
        home.write("keys", "x.pem", b"secret")
    assert [entry.name for entry in (tmp_path / "keys").iterdir()] == ["x.pem"]


def test_what_a_killed_writer_left_is_no_file_of_ours(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.write("keys", "x.pem", b"whole")
    (tmp_path / "keys" / ".x.pem.123").write_bytes(b"ha")
    assert [file.name for file in home.files("keys", ".pem")] == ["x.pem"]


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(MAX_FILE + 1))
    with pytest.raises(SecurityError, match="larger than"):
        Home(tmp_path).read(tmp_path / "x")


def test_the_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []
    crowds: list[int] = []

    def enter(number: int) -> None:
        for _ in range(50):
            with Home(tmp_path).locked():
                inside.append(number)
                crowds.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(crowds) == 200
    assert set(crowds) == {1}


def test_a_change_by_anybody_is_seen(tmp_path: Path) -> None:
    home, other = Home(tmp_path), Home(tmp_path)
    seen = [home.version("known", "pinned")]
    other.write("known", "a.pem", b"a")
    seen.append(home.version("known", "pinned"))
    other.remove("known", "a.pem")
    seen.append(home.version("known", "pinned"))
    assert len(set(seen)) == 3
    assert home.version("known", "pinned") == seen[-1]


@pytest.mark.parametrize("local", ["../../etc/passwd", ".", "..", "a/b", "a\\b", "é" * 30, "%2e", "a@b", "a%b", "a b"])
def test_no_address_leads_out_of_its_directory(tmp_path: Path, local: str) -> None:
    name = file_name(Address.im(local, "a.test"))
    assert "/" not in name
    assert named([name]) == [Address.im(local, "a.test")], "and it can be read back"
    assert Home(tmp_path).write("keys", name + ".pem", b"x").parent == tmp_path / "keys"


def test_an_address_longer_than_a_file_name_is_a_sentence() -> None:
    with pytest.raises(SecurityError, match="too long"):
        file_name(Address.im("ü" * 200, "a.test"))
