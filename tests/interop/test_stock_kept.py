"""What a stock XMPP program keeps on its account: keys of end-to-end encryption others find there, and its bookmarks.

Evidence for personal eventing and private storage (XEP-0163, 0384, 0049) with a program nobody here wrote.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.profanity import Profanity
from tests.interop.server import ComityServer
from tests.peers import need_program

pytestmark = pytest.mark.peer

SECRET = "Treffpunkt: <Hutmacher> & Tee"
ROOM = "tea@rooms.test"


class Keeper(Profanity):
    """Profanity, as somebody uses it who keeps things on the account."""

    def make_keys(self) -> None:
        """OMEMO: make keys and publish them."""
        self._type("/omemo trustmode blind")
        self._type("/omemo gen")
        self._wait_log("[OMEMO] bundle published successfully")
        self._wait_log("[OMEMO] publish device list")

    def wait_devices(self, who: str) -> None:
        """Until it was told the device list of ``who``."""
        self._wait_log(f"[OMEMO] Setting device list for {who}")

    def whisper(self, to: str, text: str) -> None:
        """Send ``text`` so that only ``to`` can read it."""
        self._type(f"/msg {to}")
        self._type(f"/omemo start {to}")
        self._wait_log(f"[OMEMO] create session with {to} device")
        self._type(text)

    def befriend(self, other: Keeper) -> None:
        """Each sees the other."""
        for asker, asked in ((self, other), (other, self)):
            asker.watch(asked.sign_in.address)
            asked.wait_asked(asker.sign_in.address)
            asked.answer(asker.sign_in.address, granted=True)

    def bookmark(self, room: str) -> None:
        """Keep a room; back when the server answered that it did."""
        self._type(f"/bookmark add {room} nick ally autojoin off")
        self._running.wait_until(self._is_stored, "the answer to its bookmarks in its log")

    def _is_stored(self) -> bool:
        log = self._log()
        asked = re.search(r'SENT: <iq(?=[^>]* type="set")[^>]* id="([^"]*)"[^>]*><query xmlns="jabber:iq:private"', log)
        return asked is not None and f'<iq id="{asked[1]}"' in log[asked.end() :]

    def bookmarks(self) -> str:
        """The answer to the question it asks at its start."""
        self._wait_log('RECV: <iq id="bookmark_init_request"')
        return next(line for line in self.stanzas("iq") if 'id="bookmark_init_request"' in line)

    def stanzas(self, kind: str) -> list[str]:
        """What it received, as it stood on the stream."""
        return [line for line in self._log().splitlines() if f"RECV: <{kind} " in line]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComityServer]:
    need_program("profanity")
    made = ComityServer(tmp_path_factory.mktemp("kept"))
    with contextlib.ExitStack() as stack:
        stack.callback(made.stop)
        made.start()
        yield made


@contextlib.contextmanager
def running(server: ComityServer, home: Path, address: str) -> Iterator[Keeper]:
    """One that is signed in."""
    home.mkdir(exist_ok=True)
    keeper = Keeper(home, server.sign_in(address, "xmpp", "starttls"))
    with contextlib.ExitStack() as stack:
        stack.callback(keeper.stop)
        keeper.start()
        yield keeper


def test_two_who_never_met_encrypt_with_the_keys_they_find(server: ComityServer, tmp_path: Path) -> None:
    """XEP-0384: device lists come with the approval, keys are fetched, and the server carries what it cannot read."""
    ann, ben = server.new_account("ann"), server.new_account("ben")
    with running(server, tmp_path / "ann", ann) as one, running(server, tmp_path / "ben", ben) as other:
        one.make_keys()
        other.make_keys()
        one.befriend(other)
        one.wait_devices(ben)
        one.whisper(ben, SECRET)
        other.wait_received(ann, SECRET)
        carried = [line for line in other.stanzas("message") if "axolotl" in line and "<encrypted" in line]
        assert carried
        assert not any("Hutmacher" in line for line in carried)


def test_bookmarks_are_there_for_the_next_program(server: ComityServer, tmp_path: Path) -> None:
    """XEP-0049."""
    ann = server.new_account("ann")
    with running(server, tmp_path / "desk", ann) as desk:
        desk.bookmark(ROOM)
    with running(server, tmp_path / "laptop", ann) as laptop:
        assert ROOM in laptop.bookmarks()
