"""Inputs of the same kinds that the catalogue does not list: valid streams and objects, changed in the ways attackers do.

Duplicate, delete, swap, nest, lengthen, bad octets, other namespaces, cut anywhere; used over sockets here and without
them in ``tests/properties/test_two_readers.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hypothesis import strategies as st

#: What is put between the octets of SIP messages.
SIP_PIECES = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b":",
        b" ",
        b"\t",
        b";",
        b",",
        b"<",
        b">",
        b'"',
        b"\\",
        b"%00",
        b"\x00",
        b"\xff",
        b"=",
        b"@",
    ),
    *(
        b"sip:",
        b"SIP/2.0",
        b"z9hG4bK",
        b"Via: SIP/2.0/UDP h\r\n",
        b"Content-Length: 9\r\n",
        b"0",
        b"9" * 20,
        b"A" * 300,
    ),
]

NAMESPACES = (
    b"jabber:client",
    b"jabber:server",
    b"http://etherx.jabber.org/streams",
    b"urn:ietf:params:xml:ns:xmpp-sasl",
    b"urn:ietf:params:xml:ns:xmpp-tls",
    b"urn:ietf:params:xml:ns:xmpp-bind",
    b"urn:ietf:params:xml:ns:xmpp-e2e",
    b"urn:ietf:params:xml:ns:xmpp-stanzas",
    b"urn:comity:octets:0",
    b"urn:xmpp:carbons:2",
    b"urn:xmpp:forward:0",
    b"urn:xmpp:delay",
    b"urn:xmpp:sid:0",
    b"urn:xmpp:sm:3",
    b"urn:evil",
    b"",
)
STANZAS = (
    b"<message to='bob@a.test' id='1' type='chat' xml:lang='en'><subject>s</subject><body>hi</body></message>",
    b"<message to='bob@a.test' from='alice@a.test'><body>a</body><body xml:lang='cs'>b</body><thread>t</thread></message>",
    b"<message to='bob@a.test/x'><active xmlns='http://jabber.org/protocol/chatstates'/></message>",
    b"<c:message xmlns:c='jabber:client' to='bob@a.test'><c:body>&lt;x&gt;<![CDATA[]] >]]></c:body></c:message>",
    b"<message to='bob@a.test'><e2e xmlns='urn:ietf:params:xml:ns:xmpp-e2e'><![CDATA[\nContent-Type: message/cpim\n\n"
    b"From: <im:alice@a.test>\nTo: <im:bob@a.test>\n\nContent-Type: text/plain\n\nhi\n]]></e2e></message>",
    b"<message to='bob@a.test'><octets xmlns='urn:comity:octets:0'>QTogYg0KDQr/AA==</octets></message>",
    b"<message to='bob@a.test' type='error' id='1'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
    b"</error></message>",
    b"<message to='bob@a.test'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>"
    b"<message xmlns='jabber:client' from='boss@a.test'><body>x</body></message></forwarded></received></message>",
    b"<iq type='get' id='2'><ping xmlns='urn:xmpp:ping'/></iq>",
    b"<iq type='set' id='3' to='bob@a.test/x'><query xmlns='jabber:iq:roster'><item jid='x@y'/></query></iq>",
    b"<iq type='result' id='4' to='a.test'/>",
    b"<presence><priority>1</priority></presence>",
    b"<presence to='bob@a.test' type='subscribe'/>",
    b"<r xmlns='urn:xmpp:sm:3'/>",
    b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
    b"<a xmlns='urn:xmpp:sm:3' h='0'/>",
    b" ",
)
NEGOTIATION = (
    b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHg=</auth>",
    b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>biwsbj1hbGljZSxyPWI=</auth>",
    b"<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>Yz1iaXdzLHI9YixwPQ==</response>",
    b"<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
    b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>",
    b"<resume xmlns='urn:xmpp:sm:3' previd='x' h='1'/>",
)
ODD_XML = (
    *(b"<", b">", b"/", b"'", b'"', b"&", b"=", b"]]>", b"<![CDATA[", b"<!", b"<?", b"<!--", b"-->"),
    *(
        b"&amp;",
        b"&#0;",
        b"&#x110000;",
        b"&foo;",
        b"&#13;",
        b"xmlns=''",
        b" xmlns:x='jabber:client'",
        b" x:to='boss@a.test'",
    ),
    *(
        b" from='boss@a.test'",
        b" to='boss@a.test'",
        b" xml:space='preserve'",
        b"</message>",
        b"</body><body>",
        b"<body/>",
    ),
    *(
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\x00",
        b"\xef\xbf\xbe",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xae",
        b"\xf0\x9f\x98\x80",
    ),
)
OBJECTS = (
    b"From: <im:alice@a.test>\r\nTo: <im:bob@a.test>\r\n\r\nContent-Type: text/plain\r\n\r\nhello",
    b"From: Alice <im:alice@a.test>\r\nTo: Bob <im:bob@a.test>\r\ncc: <im:eve@b.test>\r\n"
    b"DateTime: 2000-12-13T13:40:00-08:00\r\nSubject: the weather\r\nSubject:;lang=fr beau temps\r\n"
    b"NS: MyFeatures <mid:MessageFeatures@id.foo.com>\r\nRequire: MyFeatures.VitalMessageOption\r\n"
    b"MyFeatures.VitalMessageOption: Confirmation-requested\r\n\r\n"
    b"Content-type: text/xml; charset=utf-8\r\nContent-ID: <1234567890@foo.com>\r\n\r\n<body>x</body>",
    b"NS: c <urn:ietf:params:cpim-headers:>\r\nNS: imdn <urn:ietf:params:imdn>\r\nc.From: <im:alice@a.test>\r\n"
    b"To: <im:bob@a.test>\r\nimdn.Message-ID: 1\r\n\r\nContent-Type: message/cpim\r\n\r\nFrom: <im:x@y>\r\n\r\n\r\n",
)
ODD_LINES = (
    *(b"From: <im:boss@a.test>\r\n", b"from: <im:boss@a.test>\r\n", b"FROM: boss\r\n", b"To: <im:boss@a.test>\r\n"),
    *(
        b"to: <im:boss@a.test>\r\n",
        b"CC: <im:bob@a.test>\r\n",
        b"c.From: <im:boss@a.test>\r\n",
        b"x.To: <im:boss@a.test>\r\n",
    ),
    *(
        b"NS: <urn:x>\r\n",
        b"NS: <urn:ietf:params:cpim-headers:>\r\n",
        b"NS: c <urn:x>\r\n",
        b"ns: x\r\n",
        b"Sender: boss\r\n",
    ),
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b" folded\r\n",
        b":",
        b"\\u000d\\u000a",
        b'"',
        b"<",
        b">",
        b"<im:boss@a.test>",
    ),
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc2\x85", b"%40", b"@", b"(comment)", b", ", b";x=y"),
)
_XML_TOKENS = re.compile(rb"</?[^\s<>/]+|\s[^\s=<>]+=(?:'[^']*'|\"[^\"]*\")|/?>|[^<>]")
_LINE_TOKENS = re.compile(rb"[^\r\n]*\r\n|[^\r\n]+|\r|\n")


@st.composite
def _changed(draw: st.DrawFn, seeds: Sequence[bytes], tokens: re.Pattern[bytes], odd: Sequence[bytes]) -> bytes:
    """One to three seeds, changed one to four times."""
    octets = b"".join(draw(st.lists(st.sampled_from(seeds), min_size=1, max_size=3)))
    parts = tokens.findall(octets)
    for _ in range(draw(st.integers(1, 4))):
        if not parts:
            break
        here, there = sorted(draw(st.tuples(st.integers(0, len(parts) - 1), st.integers(0, len(parts) - 1))))
        match draw(st.sampled_from(("twice", "away", "swap", "nest", "long", "odd", "octet", "namespace", "case"))):
            case "twice":
                parts[here:here] = parts[here : there + 1]
            case "away":
                del parts[here : min(there, here + 3) + 1]
            case "swap":
                parts[here], parts[there] = parts[there], parts[here]
            case "nest":
                parts[there:there] = parts[here : there + 1] * draw(st.integers(1, 3))
            case "long":
                parts[here] = parts[here][:-1] + parts[here][-1:] * draw(st.sampled_from((2, 65, 1024, 9000)))
            case "odd":
                parts.insert(here, draw(st.sampled_from(odd)))
            case "octet":
                place = draw(st.integers(0, len(parts[here])))
                parts[here] = parts[here][:place] + draw(st.binary(max_size=2)) + parts[here][place + 1 :]
            case "namespace":
                found = [n for n in NAMESPACES if n and n in parts[here]] or [b"message"]
                parts[here] = parts[here].replace(found[0], draw(st.sampled_from(NAMESPACES)))
            case "case":
                parts[here] = parts[here].swapcase()
    return b"".join(parts)


bound_streams = _changed(STANZAS, _XML_TOKENS, ODD_XML)
negotiating_streams = _changed((*NEGOTIATION, *STANZAS), _XML_TOKENS, ODD_XML)
objects = _changed(OBJECTS, _LINE_TOKENS, ODD_LINES)
"""message/cpim objects of alice's to bob."""


@st.composite
def cuts(draw: st.DrawFn) -> list[int]:
    """Sizes of the pieces in which something is sent, to be used over and over."""
    return draw(st.lists(st.integers(1, 200), min_size=1, max_size=5) | st.just([1]) | st.just([1 << 20]))


def in_pieces(octets: bytes, sizes: Sequence[int]) -> list[bytes]:
    """``octets`` in pieces of these sizes, over and over."""
    found: list[bytes] = []
    position = 0
    while position < len(octets):
        size = sizes[len(found) % len(sizes)]
        found.append(octets[position : position + size])
        position += size
    return found


__all__ = [
    "NAMESPACES",
    "NEGOTIATION",
    "OBJECTS",
    "STANZAS",
    "bound_streams",
    "cuts",
    "in_pieces",
    "negotiating_streams",
    "objects",
]
