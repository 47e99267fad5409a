"""The fuzz target runs over a small corpus and mutations of it, so that it cannot rot (reliability.md 2.17)."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

from tests.bindings.xmpp.pair import HEADER
from tests.test_xml import BEFORE_HEADER, CLOSING, STANZAS

TARGET = Path(__file__).parents[3] / "fuzz" / "fuzz_xmpp.py"
SEEDS = [
    STANZAS,
    *(data for _, data, _ in BEFORE_HEADER + CLOSING),
    HEADER,
    b"<message to='b@a.test' id='1' type='chat' xml:lang='en'><subject>s</subject><body>hi</body><thread>t</thread>"
    b"<active xmlns='http://jabber.org/protocol/chatstates'/><x:y xmlns:x='urn:x' x:z='&#13;'/></message>",
    b"<message to='b@a.test'><e2e xmlns='urn:ietf:params:xml:ns:xmpp-e2e'><![CDATA[\nContent-Type: message/cpim\n\n"
    b"From: <im:a@a.test>\n\nContent-Type: text/plain\n\nhi\n]]></e2e></message>",
    b"<message to='b@a.test'><octets xmlns='urn:comity:octets:0'>QTogYg0KDQr/AA==</octets></message>",
    b"<presence/><iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq><r xmlns='urn:xmpp:sm:3'/>",
    b"<a xmlns='urn:xmpp:sm:3' h='0'/><resume xmlns='urn:xmpp:sm:3' previd='x' h='1'/>",
    b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>biwsbj1hLHI9Yg==</auth>"
    b"<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>Yz1iaXdzLHI9YixwPQ==</response>",
]


def test_the_target_takes_every_seed_and_many_mutations_of_it() -> None:
    spec = importlib.util.spec_from_file_location("fuzz_xmpp", TARGET)
    assert spec
    assert spec.loader
    target = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(target)
    dice = random.Random(20260101)
    for seed in SEEDS:
        target.one_input(seed)
        for _ in range(25):
            octets = bytearray(seed)
            for _ in range(dice.randint(1, 4)):
                place = dice.randrange(len(octets))
                octets[place : place + dice.randint(0, 3)] = bytes(
                    dice.choices(b"<>/'\"=&#;:! \n\r]\x00\xc3\xa9ax0", k=2)
                )
            target.one_input(bytes(octets))
