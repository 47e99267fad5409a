"""XCAP among hostile peers: N-24 as a whole, and the URI tricks named in reliability.md section 1 (GHSA rows of other servers' XCAP).

Every row goes over real HTTPS with a good password: who has none gets 401 and nothing of it is read (``tests/xcap``). After each, the last
good document stands and the server answers; no row costs more computing time than a mistake may (G7).
"""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from comity.cpim.common_policy import COMMON_POLICY
from comity.cpim.watchers import SubscriptionState
from comity.service.presence.interfaces import Granted
from tests.loop import in_loop
from tests.xcap.house import ALICE, BOB, ELEMENT, TYPES, Served, lists, password, path, serving

RULES = path("pres-rules")
LISTS = path("resource-lists")
GOOD = lists("<list name='good'><entry uri='sip:bob@a.test'/></list>")
GOOD_RULES = (
    f"<ruleset xmlns='{COMMON_POLICY}' xmlns:pr='urn:ietf:params:xml:ns:pres-rules'><rule id='a'><conditions><identity>"
    "<one id='sip:bob@a.test'/></identity></conditions><actions><pr:sub-handling>allow</pr:sub-handling></actions></rule></ruleset>"
).encode()
CPU_SECONDS = 0.6
"""Of one request, client and TLS included, on a machine that has other things to do."""


class Alice:
    """Asks as alice and looks at what it cost."""

    def __init__(self, served: Served, session: aiohttp.ClientSession) -> None:
        self.served = served
        self.session = session

    async def ask(self, method: str, raw: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
        headers = {"Content-Type": kind} if kind else {}
        url = URL(self.served.root + raw, encoded=True)
        begun = time.thread_time()
        async with self.session.request(
            method, url, data=io.BytesIO(body) if body else None, headers=headers
        ) as answer:
            told = answer.status, await answer.read()
        spent = time.thread_time() - begun
        assert spent < CPU_SECONDS, f"{spent:.3f} s for {method} {raw[:100]}"
        return told


@asynccontextmanager
async def alice(folder: Path) -> AsyncIterator[Alice]:
    async with serving(folder) as served:
        digest = aiohttp.DigestAuthMiddleware("alice", password("alice"))
        connector = aiohttp.TCPConnector(ssl=served.client_context())
        async with aiohttp.ClientSession(connector=connector, middlewares=(digest,)) as session:
            one = Alice(served, session)
            assert (await one.ask("PUT", LISTS, GOOD, TYPES["resource-lists"]))[0] == 201
            assert (await one.ask("PUT", RULES, GOOD_RULES, TYPES["pres-rules"]))[0] == 201
            yield one


async def stands(one: Alice) -> None:
    """The good documents, and what follows from them."""
    assert await one.ask("GET", LISTS) == (200, GOOD)
    assert await one.ask("GET", RULES) == (200, GOOD_RULES)
    assert set(await one.served.house.contacts()) == {"bob"}
    watching = await one.served.house.watch(BOB, ALICE)
    assert isinstance(watching, Granted)
    assert watching.subscription.state is SubscriptionState.ACTIVE


def rules(inside: str) -> bytes:
    return f"<ruleset xmlns='{COMMON_POLICY}'>{inside}</ruleset>".encode()


def identities(count: int) -> bytes:
    many = "".join(f"<one id='sip:u{number}@example.com'/>" for number in range(count))
    return rules(f"<rule id='a'><conditions><identity>{many}</identity></conditions></rule>")


DOCUMENTS: dict[str, tuple[bytes, int]] = {
    "a million identities": (identities(1_000_000), 413),
    "five thousand identities": (identities(5_000), 413),
    "a million attributes": (b"<ruleset " + b" ".join(b"a%d='1'" % n for n in range(20_000)) + b"/>", 413),
    "deep nesting": (b"<a>" * 20_000 + b"</a>" * 20_000, 413),
    "billion laughs": (b"<!DOCTYPE x [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]>" + rules("&b;"), 409),
    "external entity": (b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>" + rules("&e;"), 409),
    "XInclude": (rules("<i:include xmlns:i='http://www.w3.org/2001/XInclude' href='file:///etc/passwd'/>"), 409),
    "an instruction": (b"<?xml-stylesheet href='x'?>" + rules(""), 409),
    "UTF-16": (rules("").decode().encode("utf-16"), 409),
    "nothing": (b" ", 409),
    "two roots": (rules("") * 2, 409),
    "a bad handling": (GOOD_RULES.replace(b">allow<", b">everything<"), 409),
    "a validity without end": (
        rules("<rule id='a'><conditions><validity><from>x</from></validity></conditions></rule>"),
        409,
    ),
    "the list of somebody else's making": (GOOD, 409),
}


@pytest.mark.parametrize("name", DOCUMENTS)
@in_loop
async def test_n_24_a_hostile_rules_document_is_refused_and_the_last_good_one_stands(name: str, tmp_path: Path) -> None:
    octets, status = DOCUMENTS[name]
    async with alice(tmp_path) as one:
        assert (await one.ask("PUT", RULES, octets, TYPES["pres-rules"]))[0] == status


NODES: dict[str, str] = {
    "an axis": "resource-lists/descendant::entry",
    "everything": "//*",
    "a parent": "resource-lists/list/..",
    "a function": "resource-lists/list[last()]",
    "a union": "resource-lists|resource-lists",
    "a comparison": "resource-lists/list[1=1]",
    "an unclosed bracket": "resource-lists/list[@name='good'",
    "an unclosed quotation mark": "resource-lists/list[@name='good]",
    "a long position": "resource-lists/list[" + "9" * 4000 + "]",
    "a zero": "resource-lists/list[0]",
    "many steps": "/".join(["resource-lists"] * 500),
    "many stars": "/".join(["*"] * 1500),
    "many brackets": "a" + "[1]" * 1000,
    "a long value": "resource-lists/list[@name='" + "a" * 7000 + "']",
    "many quotation marks": "resource-lists/list[@name=" + "'\"" * 900 + "]",
    "a NUL": "resource-lists/list[@name='\0']",
    "an entity": "resource-lists/list[@name='&xxe;']",
    "a variable": "$x",
    "an expression of XPath 2": "for $x in 1 to 1000000 return resource-lists",
}


@pytest.mark.parametrize("name", NODES)
@in_loop
async def test_n_24_a_bad_xpath_finds_nothing_and_changes_nothing(name: str, tmp_path: Path) -> None:
    """RFC 4825 section 8 says 404; 409 where only the last step can name nothing, 414 for what is too long."""
    async with alice(tmp_path) as one:
        raw = f"{LISTS}/~~/{quote(NODES[name])}"
        assert (await one.ask("GET", raw))[0] in (404, 400)
        assert (await one.ask("DELETE", raw))[0] in (404, 400)
        assert (await one.ask("PUT", raw, b"<list/>", ELEMENT))[0] in (404, 409, 400)


QUERIES = [
    *(
        "xmlns(",
        "xmlns(a=u",
        "xmlns(a=u" + "(" * 3000,
        "(" * 7000,
        "a=b",
        "%00",
        "xmlns(xmlns=u)x",
    ),
    *("".join(f"xmlns(p{number}=u:{number})" for number in range(300)) + "bad",),
]


@pytest.mark.parametrize("query", QUERIES, ids=lambda text: text[:20])
@in_loop
async def test_a_query_that_is_no_pointer_is_a_bad_request(query: str, tmp_path: Path) -> None:
    async with alice(tmp_path) as one:
        assert (await one.ask("GET", f"{LISTS}/~~/resource-lists?{quote(query, safe='()=^:%')}"))[0] == 400


HOME = "/resource-lists/users/sip:alice@a.test"
TRICKS: dict[str, tuple[str, int]] = {
    "up": (f"{HOME}/../sip:bob@a.test/index", 404),
    "up, encoded": (f"{HOME}/%2e%2e/sip:bob@a.test/index", 404),
    "up, half encoded": (f"{HOME}/.%2E/sip:bob@a.test/index", 404),
    "up, encoded twice": (f"{HOME}/%252e%252e/index", 404),
    "up inside a name": (f"{HOME}/..%2fsip:bob@a.test%2findex", 404),
    "back slashes": (f"{HOME}/..%5c..%5cindex", 404),
    "overlong slash": (f"{HOME}/..%c0%afindex", 400),
    "a NUL": (f"{HOME}/index%00.xml", 404),
    "a line end": (f"{HOME}/index%0d%0aX-Evil:%201", 404),
    "an empty name": (f"{HOME}/", 404),
    "an empty segment": (f"{HOME}//index", 404),
    "a bad percent sign": (f"{HOME}/%g0", 400),
    "another usage from inside": (f"{HOME}/index/../../../pres-rules/users/sip:bob@a.test/index", 404),
    "somebody else": ("/resource-lists/users/sip:bob@a.test/index", 403),
    "somebody else, encoded": ("/resource-lists/users/sip%3a%62ob%40a.test/index", 403),
    "somebody who is not": ("/resource-lists/users/sip:nobody@a.test/index", 403),
    "two people": ("/resource-lists/users/sip:alice@a.test%2f..%2fsip:bob@a.test/index", 404),
    "two people, one domain": ("/resource-lists/users/sip:alice%2fsip:bob@a.test/index", 403),
    "a wildcard": ("/resource-lists/users/*/index", 403),
    "another domain": ("/resource-lists/users/sip:alice@b.test/index", 404),
    "no domain": ("/resource-lists/users/sip:alice@/index", 404),
    "everybody": ("/resource-lists/global/index", 403),
    "everybody's services": ("/rls-services/global/index", 403),
    "no usage": ("/admin/users/sip:alice@a.test/index", 404),
    "another tree": ("/resource-lists/groups/sip:alice@a.test/index", 404),
    "a store's own name": ("/private/users/sip:alice@a.test/index", 404),
    "vcard of the store": ("/vcard4/users/sip:alice@a.test/index", 404),
    "the separator first": ("/~~/resource-lists", 404),
    "too long": ("/" + "a" * 8192, 414),
}


@pytest.mark.parametrize("name", TRICKS)
@in_loop
async def test_a_path_leads_to_ones_own_documents_or_nowhere(name: str, tmp_path: Path) -> None:
    raw, status = TRICKS[name]
    async with alice(tmp_path) as one:
        for method in ("GET", "DELETE"):
            assert (await one.ask(method, raw))[0] == status
        put = await one.ask("PUT", raw, lists("<list name='evil'/>"), TYPES["resource-lists"])
        assert put[0] in (status, 409)


@in_loop
async def test_one_account_cannot_keep_the_server_busy_with_a_large_document(tmp_path: Path) -> None:
    """The largest document there may be, asked for part by part."""
    async with alice(tmp_path) as one:
        many = "".join(f"<entry uri='tel:{number:020}'/>" for number in range(5_000))
        assert (await one.ask("PUT", LISTS, lists(f"<list>{many}</list>"), TYPES["resource-lists"]))[0] == 200
        entry = f"{LISTS}/~~/resource-lists/list/entry%5b4999%5d"
        for _ in range(3):
            assert (await one.ask("GET", entry))[0] == 200
        assert (await one.ask("PUT", LISTS, GOOD, TYPES["resource-lists"]))[0] == 200
