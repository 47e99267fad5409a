"""An access entry set by an APEX application, and what SIP and XMPP watchers are told of it, over real sockets (APEX-25).

The people are ``presence_people``'s; the application is the independent peer of ``tests/interop``, which imports nothing of ours.
"""

from __future__ import annotations

import re
import ssl
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from comity.cpim.message_rules import MESSAGE_RULES
from tests.interop.apex_peer import Application
from tests.interop.apex_peer_beep import Refused
from tests.paths.kit import PASSWORD, Via, free_ports
from tests.paths.presence_people import House

LIMITS = "presence_interval = 0.001"
VIAS: list[Via] = ["sip", "xmpp"]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server that tells each change at once, with XCAP."""
    made = House(tmp_path_factory.mktemp("access"), LIMITS)
    (port,) = free_ports(1)
    text = made.config.read_text(encoding="utf-8")
    made.config.write_text(f'{text}\n[xcap]\nlisten = ["https://127.0.0.1:{port}"]\n', encoding="utf-8")
    made.start()
    yield made
    assert made.stop() == 0


def attached(house: House, stack: ExitStack, name: str) -> Application:
    """An application attached as the account."""
    application = stack.enter_context(Application(*house.port("apex", "tcp")))
    application.sign_in(name, PASSWORD)
    application.attach(f"{name}@a.test")
    return application


def put_rules(house: House, owner: str, rules: str) -> int:
    """Put presence rules as a SIP program does; the status code."""
    (root,) = re.findall(r"https://127\.0\.0\.1:\d+", house.config.read_text(encoding="utf-8"))
    url = f"{root}/pres-rules/users/sip:{owner}@a.test/index"
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, root, owner, PASSWORD)
    trust = ssl.create_default_context(cafile=house.authority)
    trust.check_hostname = False  # it is called by its address
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=trust), urllib.request.HTTPDigestAuthHandler(passwords)
    )
    head = {"Content-Type": "application/auth-policy+xml"}
    with opener.open(urllib.request.Request(url, rules.encode(), head, method="PUT"), timeout=20) as answer:
        return int(answer.status)


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
        application = attached(house, stack, seen.name)
        owner, actor = f"{seen.name}@a.test", f"{watcher.name}@a.test"
        moment = set_entry(application, owner, actor, "core:data presence:subscribe")
        watcher.sees(seen.name, "open")
        set_entry(application, owner, actor, "all:none", moment)
        watcher.sees(seen.name, "ended" if via == "sip" else "closed")
        seen.tell("away", "after the end")
        seen.heard_until_now()
        watcher.heard_until_now()
        assert not [notice for notice in watcher.heard if b"after the end" in notice.octets]


def test_a_rule_set_by_xcap_blocks_an_apex_sender(house: House) -> None:
    """APEX-12, APEX-25: the owner sees it in a query, the sender hears that there is nobody."""
    with ExitStack() as stack:
        owner, sender = house.account("owner"), house.account("sender")
        alice, bob = attached(house, stack, owner), attached(house, stack, sender)
        ends = f"{sender}@a.test", f"{owner}@a.test"
        text = (b"Content-Type: text/plain\r\n", b"hello")
        bob.data(*ends, part=text)
        assert alice.receive().body == b"hello"
        rules = (
            '<ruleset xmlns="urn:ietf:params:xml:ns:common-policy"><rule id="m"><conditions><identity>'
            f'<one id="sip:{sender}@a.test"/></identity></conditions><actions>'
            f'<msg-handling xmlns="{MESSAGE_RULES}">block</msg-handling></actions></rule></ruleset>'
        )
        assert put_rules(house, owner, rules) == 201
        with pytest.raises(Refused) as refused:
            bob.data(*ends, part=text)
        assert "550" in str(refused.value)
        query = f"<query owner='{ends[1]}' actor='{ends[0]}' actions='core:data' transID='1' />"
        alice.data(ends[1], "apex=access@a.test", inline=query)
        assert said(alice).tag == "deny"
