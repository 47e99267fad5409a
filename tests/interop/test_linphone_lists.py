"""Linphone watches its friends by one subscription to a list it sends along (RFC 4662, RFC 5367)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.clients import Transport
from tests.interop.conftest import client_for
from tests.interop.linphone import LinphoneConsole
from tests.interop.server import DOMAIN, ComityServer

pytestmark = pytest.mark.peer


class LinphoneWithList(LinphoneConsole):
    """Told in its configuration to subscribe to one list."""

    friends: tuple[str, ...] = ()

    def configuration(self) -> str:
        friends = "".join(
            f'[friend_{number}]\nurl="{who.partition("@")[0]}" <sip:{who}>\npol=accept\nsubscribe=1\n'
            for number, who in enumerate(self.friends)
        )
        text = super().configuration().replace("[sip]\n", f"[sip]\nrls_uri=sip:contacts@{DOMAIN}\n", 1)
        return text.replace("[net]\n", "[net]\nfriendlist_subscription_enabled=1\n", 1) + friends


class OpenHouse(ComityServer):
    """Everybody may see everybody."""

    def serve(self) -> None:
        text = self.config.read_text()
        text, changed = re.subn(
            r"^(?:# )?presence_default = .*$", 'presence_default = "everyone"', text, flags=re.MULTILINE
        )
        assert changed == 1
        self.config.write_text(text)
        super().serve()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ComityServer]:
    (tmp_path / "server").mkdir()
    made = OpenHouse(tmp_path / "server", {"presence_interval": 1.0})
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize("transport", ["tls", "tcp", "udp"])
def test_linphones_list_subscription_is_taken_and_notified(
    server: ComityServer, tmp_path: Path, transport: Transport
) -> None:
    """It subscribes to the list it sends along, compressed, and takes each NOTIFY. What it makes of them its console does not
    say: that prints friends it watches one by one."""
    watcher, seen = server.new_account("watcher"), server.new_account("seen")
    home = tmp_path / "watcher"
    with contextlib.ExitStack() as stack:
        client = LinphoneWithList(home, server.sign_in(watcher, "sip", transport, presence=True))
        client.friends = (seen,)
        other = client_for(server, tmp_path / "seen", "slixmpp", "tls", seen, watcher, presence=True)
        for one in (other, client):
            one.home.mkdir(exist_ok=True)
            stack.callback(one.stop)
            one.start()

        def heard(word: str) -> bool:
            """A NOTIFY with that in it, and the 200 to it."""
            text = (home / "log").read_text(errors="replace")
            _, found, after = text.partition(word)
            return (
                bool(found)
                and re.search(r"^SIP/2.0 200 Ok\n(?:.+\n)*CSeq: \d+ NOTIFY$", after, re.MULTILINE) is not None
            )

        client.wait_until(lambda: heard("fullState='true'"), "the full state")
        other.tell("away")
        client.wait_until(lambda: heard("fullState='false'"), "what changed")
        text = (home / "log").read_text(errors="replace")
        assert "Require: recipient-list-subscribe" in text
        assert "Require: eventlist" in text
