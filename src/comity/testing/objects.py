"""A corpus of message/cpim objects, odd in every way the format allows and in some it does not.

For fidelity tests: push each through a pair of bindings and compare ``octets`` (SEED-10, SEED-11, C-24, C-25). The corpus
is a function of its seed. What is valid is known from how each object was put together, not from asking the parser.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from comity.cpim.address import Address
from comity.cpim.operations import MimeObject

_BLOCKS = (
    b"Content-Type: message/cpim\r\n",
    b"Content-type: Message/CPIM\r\n",
    b"content-type:   message/cpim\r\n",
)


@dataclass(frozen=True, eq=False)
class GeneratedObject(MimeObject):
    """A message/cpim entity that knows what it is."""

    is_valid: bool = True
    """True if it may be submitted by ``source`` to ``destination``."""
    kind: str = ""
    """The fault put in, or the kind of content."""


def objects(seed: int, count: int, source: Address, destination: Address) -> Iterator[GeneratedObject]:
    """Give ``count`` objects from ``source`` to ``destination``, about one in six of them malformed.

    Args:
        seed: the same seed gives the same objects.
        count: how many.
        source: goes into From.
        destination: goes into a To.
    """
    for index in range(count):
        # A generator for each object: the tenth is the same whether or not the ninth is wanted.
        random = Random(f"{seed}/{index}")  # noqa: S311 - repeatable on purpose, nothing secret
        yield _one(random, source, destination)


def _one(random: Random, source: Address, destination: Address) -> GeneratedObject:
    headers = _headers(random, source, destination)
    kind, content_headers, body = random.choice(_CONTENTS)(random)
    head = _joined(headers) + b"\r\n"
    content = content_headers + b"\r\n" + body
    block = random.choice(_BLOCKS)
    if random.randrange(6):
        return GeneratedObject(block, head + content, True, kind)
    fault = random.choice(list(_FAULTS))
    return GeneratedObject(block, _FAULTS[fault](headers, content, source, random), False, fault)


def _joined(headers: list[bytes]) -> bytes:
    return b"".join(header + b"\r\n" for header in headers)


# --- Message headers --------------------------------------------------------------------------------------------

_NAMES = (b"", b"", b"Winnie the Pooh ", b'"Al \\"x\\" \\u00e9" ', "Žluťoučký kůň ".encode(), b'"no space"', b"J. R. ")
_SUBJECTS = (
    b"the weather will be fine today",
    b'say "x" it\'s',
    rb"tab \t, unknown \q, unit \u0041, pair \ud83d\ude00, lone \ud83d, last \\",
    rb"injected\u000d\u000aTo: <im:boss@example.com>",
    b"ends with an isolated backslash\\",
    "one\u2028header\u0085still one".encode(),
    "decomposed z\u030clut\u030couc\u030cky\u0301".encode(),
    b"=?utf-8?Q?taken_literally?=",
    b"",
    b"inner  spaces   stay",
    b"]]> </message> &amp; %0d%0a",
    b"x" * 3000,
)
_EXTRAS = (
    [b"X-Foo: 1"],
    [b"Top&Tail: 1", b"Top&Tail: 2"],
    [b"CC: not a cc", b"FromTo: <im:no@body.example>"],
    [b"NS: MyFeatures <mid:MessageFeatures@id.foo.com>", b"MyFeatures.WackyMessageOption: Use-silly-font"],
    [b"NS: acme <http://id.acme.widgets/wily-headers/>", b"acme.runner-trap: set", b"acme.From: nobody"],
    [b"NS: relative <../x>"],
    [b"NS: a<urn:x:no-space>", b'a.B:;p=1;q="a; b";lang=en value'],
    [b"Require: Subject,DateTime"],
    [b"Content-Length: 7"],
    [
        b"NS: imdn <urn:ietf:params:imdn>",
        b"imdn.Message-ID: 34jk324j",
        b"imdn.Disposition-Notification: negative-delivery",
    ],
)


def _headers(random: Random, source: Address, destination: Address) -> list[bytes]:
    groups = [[b"From: " + random.choice(_NAMES) + b"<" + source.uri.encode() + b">"]]
    groups.append([b"To: " + random.choice(_NAMES) + b"<" + destination.uri.encode() + b">"])
    if random.random() < 0.2:
        groups.append([b"To: Somebody Else <im:else@elsewhere.example>"])
        groups.append([b"cc: <im:copy@elsewhere.example>", b"cc: <im:copy@elsewhere.example>"])
    if random.random() < 0.8:
        groups.append([random.choice((b"DateTime: 2000-12-13T13:40:00-08:00", b"DateTime: 2026-11-23t09:14:30.5z"))])
    for language in random.sample((b"", b";lang=fr", b";lang=zh-Hant;x=1"), random.randrange(3)):
        groups.append([b"Subject:" + language + b" " + random.choice(_SUBJECTS)])
    groups += random.sample(_EXTRAS, random.randrange(4))
    random.shuffle(groups)
    return [header for group in groups for header in group]


# --- Contents: (kind, MIME header block, octets) ----------------------------------------------------------------

_Content = tuple[str, bytes, bytes]
_NEWLINES = (b"\r\n", b"\n", b"\r", b"\n\r", b"\r\n\r\n", b"\x0b", b"\x0c", "\u2028".encode(), "\u0085".encode())
_LOOKALIKES = (
    b"--next\r\n\r\n--next--\r\n",
    b"]]>",
    b"<![CDATA[ ]]]]><![CDATA[>",
    b"</message></stream:stream>",
    b"END\r\nRPY 0 0 . 0 0\r\nEND\r\n",
    b"-------d93kswow$\r\n",
    b"MESSAGE sip:a@b SIP/2.0\r\nContent-Length: 0\r\n\r\n",
    b"Content-Type: message/cpim\r\n\r\nFrom: <im:x@y>\r\n\r\n",
    b"&amp;&#0;&lt;",
    b".\r\n",
)


def _text(random: Random) -> _Content:
    words = ("Here is the text of my message.", "žluťoučký", "😀", "  indented", "trailing  ", "日本語", "")
    text = " ".join(random.choice(words) for _ in range(random.randrange(40)))
    return "text", b"Content-Type: text/plain; charset=utf-8\r\n", text.encode()


def _newlines(random: Random) -> _Content:
    body = b"".join(
        random.choice((b"line", b"", b" ")) + random.choice(_NEWLINES) for _ in range(random.randrange(1, 30))
    )
    return "newlines", b"Content-type: text/plain\r\nContent-Language: cs\r\n", body


def _binary(random: Random) -> _Content:
    body = bytes(range(256)) if random.random() < 0.3 else random.randbytes(random.randrange(2000))
    return "binary", b"Content-Type: application/x-unknown\r\nContent-Transfer-Encoding: binary\r\n", body


def _empty(random: Random) -> _Content:
    return "empty", random.choice((b"Content-Type: text/plain\r\n", b"Content-Type: image/png\r\n")), b""


def _lookalike(random: Random) -> _Content:
    body = b"".join(
        random.choice((b"", b"\r\n", b"text ")) + random.choice(_LOOKALIKES) for _ in range(random.randrange(1, 6))
    )
    return "lookalike", b"Content-Type: text/plain;\r\n charset=utf-8\r\nContent-Length: 3\r\n", body


def _encoded(random: Random) -> _Content:
    body = base64.encodebytes(random.randbytes(random.randrange(300))).replace(b"\n", random.choice((b"\n", b"\r\n")))
    return "encoded", b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: BASE64\r\n", body


def _nested(random: Random) -> _Content:
    inner = b"From: <im:inner@example.com>\r\nTo: <im:other@example.com>\r\n\r\nContent-Type: text/plain\r\n\r\ninner"
    return "nested", b"Content-Type: message/cpim\r\n", inner + random.choice((b"", b"\r\n", b"\n"))


def _signed(random: Random) -> _Content:
    header = b'CONTENT-TYPE: multipart/signed; boundary="odd  boundary";\r\n\tmicalg=sha-256; protocol=application/pkcs7-signature\r\n'
    part = b"Content-type:text/plain\r\n\r\nsigned  \r\n" + random.choice((b"", b"\r\n"))
    signature = base64.b64encode(random.randbytes(90))
    parts = (
        b"--odd  boundary\r\n" + part + b"\r\n--odd  boundary \t\r\nContent-Type: application/pkcs7-signature\r\n\r\n"
    )
    return "signed", header, b"preamble\r\n" + parts + signature + b"\r\n--odd  boundary--\r\nepilogue"


_CONTENTS: tuple[Callable[[Random], _Content], ...] = (
    _text,
    _text,
    _newlines,
    _newlines,
    _binary,
    _empty,
    _lookalike,
    _encoded,
    _nested,
    _signed,
)


# --- Faults: each makes octets that no one may submit --------------------------------------------------------------


def _without(headers: list[bytes], name: bytes) -> list[bytes]:
    return [header for header in headers if not header.startswith(name + b":")]


def _whole(headers: list[bytes], content: bytes) -> bytes:
    return _joined(headers) + b"\r\n" + content


_FAULTS: dict[str, Callable[[list[bytes], bytes, Address, Random], bytes]] = {
    "lf-headers": lambda h, c, s, r: b"".join(x + b"\n" for x in h) + b"\n" + c,
    "one-bare-cr": lambda h, c, s, r: _whole([*h, b"X-Bare: a\rb"], c),
    "no-from": lambda h, c, s, r: _whole(_without(h, b"From"), c),
    "no-to": lambda h, c, s, r: _whole(_without(h, b"To"), c),
    "lower-case-from": lambda h, c, s, r: _whole([x.replace(b"From: ", b"from: ") for x in h], c),
    "from-beside-From": lambda h, c, s, r: _whole([*h, b"from: <im:lower@case.example>"], c),
    "to-beside-To": lambda h, c, s, r: _whole([b"TO: <im:upper@case.example>", *h], c),
    "two-from": lambda h, c, s, r: _whole([*h, b"From: <im:boss@example.com>"], c),
    "same-from-twice": lambda h, c, s, r: _whole([*h, b"From: <" + s.uri.encode() + b">"], c),
    "aliased-from": lambda h, c, s, r: _whole(
        [*h, b"NS: zz <urn:ietf:params:cpim-headers:>", b"zz.From: <im:boss@example.com>"], c
    ),
    "default-namespace-first": lambda h, c, s, r: _whole([b"NS: <urn:other>", *h], c),
    "undeclared-prefix": lambda h, c, s, r: _whole([*h, b"nobody.Knows: 1"], c),
    "prefix-twice": lambda h, c, s, r: _whole([*h, b"NS: zz <urn:x:1>", b"NS: zz <urn:x:2>"], c),
    "two-dates": lambda h, c, s, r: _whole([*h, *[b"DateTime: 2000-12-13T13:40:00Z"] * 2], c),
    "impossible-date": lambda h, c, s, r: _whole([*_without(h, b"DateTime"), b"DateTime: 2000-02-30T00:00:00Z"], c),
    "folded": lambda h, c, s, r: _whole([*h, b"Subject: one", b" two"], c),
    "no-space": lambda h, c, s, r: _whole([*h, b"Subject:none"], c),
    "two-spaces": lambda h, c, s, r: _whole([*h, b"Subject:  two"], c),
    "trailing-space": lambda h, c, s, r: _whole([*h, b"Subject: end "], c),
    "tab": lambda h, c, s, r: _whole([*h, b"Subject: a\tb"], c),
    "control": lambda h, c, s, r: _whole([*h, b"Subject: a" + bytes([r.choice((*range(10), *range(14, 32), 127))])], c),
    "not-utf-8": lambda h, c, s, r: _whole(
        [*h, b"Subject: " + r.choice((b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xe2\x82"))], c
    ),
    "byte-order-mark": lambda h, c, s, r: b"\xef\xbb\xbf" + _whole(h, c),
    "name-not-ascii": lambda h, c, s, r: _whole([*h, "Předmět: x".encode()], c),
    "comment-in-to": lambda h, c, s, r: _whole([*h, b"To: a (x) <im:a@b>"], c),
    "no-content-type": lambda h, c, s, r: _joined(h) + b"\r\nContent-ID: <1@foo>\r\n\r\n",
    "no-content": lambda h, c, s, r: _joined(h) + b"\r\n",
    "cut": lambda h, c, s, r: _joined(h)[:-2],
    "too-many-headers": lambda h, c, s, r: _whole(h + [b"X: y"] * 300, c),
    "not-cpim": lambda h, c, s, r: b"hello",
}
