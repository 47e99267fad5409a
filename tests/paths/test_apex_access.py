"""An access entry set by an APEX application, and what SIP and XMPP watchers are told of it, over real sockets (APEX-25).

The people are ``presence_people``'s; the application is the independent peer of ``tests/interop``, which imports nothing of ours.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.interop.apex_peer import Application
from tests.paths.kit import PASSWORD, Via
from tests.paths.presence_people import House

LIMITS = "presence_interval = 0.001"
VIAS: list[Via] = ["sip", "xmpp"]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server that tells each change at once."""
    made = House(tmp_path_factory.mktemp("access"), LIMITS)
    made.start()
    yield made
    assert made.stop() == 0


def said(application: Application) -> ET.Element:
    """What the service says next."""
    content = application.receive().inline
    assert content is not None
    return content[0]


def set_entry(application: Application, owner: str, actor: str, actions: str, last_update: str = "") -> str:
    """Set an entry; its ``lastUpdate``."""
    moment = f" lastUpdate='{last_update}'" if last_update else ""
    entry = f"<access owner='{owner}' actor='{actor}' actions='{actions}'{moment} />"
    application.data(owner, "apex=access@a.test", inline=f"<set transID='1'>{entry}</set>")
    reply, told = said(application), said(application)
    assert (reply.tag, reply.get("code")) == ("reply", "250")
    (access,) = told
    return str(access.get("lastUpdate"))


@pytest.mark.parametrize("via", VIAS)
def test_an_entry_lets_a_watcher_in_and_out_again(house: House, via: Via) -> None:
    """He waits for an answer, has it with the entry, and what he has ends with the next one; before that says 250."""
    with ExitStack() as stack:
        watcher = stack.enter_context(house.person(via, house.account("watcher")))
        seen = stack.enter_context(house.person("xmpp", house.account("seen")))
        seen.tell("open")
        watcher.watch(seen.name)
        watcher.heard_until_now()
        assert not [notice for notice in watcher.heard if notice.state == "open"]
        application = stack.enter_context(Application(*house.port("apex", "tcp")))
        application.sign_in(seen.name, PASSWORD)
        owner, actor = f"{seen.name}@a.test", f"{watcher.name}@a.test"
        application.attach(owner)
        moment = set_entry(application, owner, actor, "core:data presence:subscribe")
        watcher.sees(seen.name, "open")
        set_entry(application, owner, actor, "all:none", moment)
        watcher.sees(seen.name, "ended" if via == "sip" else "closed")
        seen.tell("away", "after the end")
        seen.heard_until_now()
        watcher.heard_until_now()
        assert not [notice for notice in watcher.heard if b"after the end" in notice.octets]
