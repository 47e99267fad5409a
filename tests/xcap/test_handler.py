"""XCAP over real HTTPS: ``comity.xcap.handler`` and ``comity.net.https``, asked by aiohttp and by curl."""

from __future__ import annotations

import asyncio
import shutil
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from comity.net.limits import NetLimits
from comity.service.credentials import FailureGuard
from tests.loop import in_loop
from tests.xcap.house import ELEMENT, TYPES, House, Served, lists, password, path, serving

LISTS = path("resource-lists")
FRIENDS = lists("<list name='Friends'><entry uri='sip:bob@a.test'/></list>")


@asynccontextmanager
async def client(served: Served, name: str = "alice", secret: str = "") -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client with digest, trusting the test's authority."""
    digest = aiohttp.DigestAuthMiddleware(name, secret or password(name.partition("@")[0]))
    connector = aiohttp.TCPConnector(ssl=served.client_context())
    async with aiohttp.ClientSession(connector=connector, middlewares=(digest,)) as session:
        yield session
    await asyncio.sleep(0)


async def raw(served: Served, octets: bytes) -> bytes:
    """What a connection of our own gets for these octets, to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=served.client_context())
    writer.write(octets)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def curl(served: Served, *arguments: str) -> tuple[int, bytes]:
    """Run curl with alice's password; the status and the body."""
    program = shutil.which("curl")
    assert program, "curl is among the packages of the test environment"
    process = await asyncio.create_subprocess_exec(
        program,
        *("--silent", "--cacert", str(served.ca.file), "--digest", "--user", f"alice:{password('alice')}"),
        *("--write-out", "%{stderr}%{http_code}"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    return int(err), out


class TestAiohttp:
    @pytest.mark.parametrize("name", ["alice", "alice@a.test", "Alice"])
    @in_loop
    async def test_a_document_is_put_read_changed_and_deleted(self, name: str, tmp_path: Path) -> None:
        async with serving(tmp_path) as served, client(served, name, password("alice")) as session:
            headers = {"Content-Type": TYPES["resource-lists"]}
            async with session.put(served.root + LISTS, data=FRIENDS, headers=headers) as answer:
                assert (answer.status, await answer.read()) == (201, b"")
                etag = answer.headers["ETag"]
            async with session.get(served.root + LISTS) as answer:
                assert (answer.status, await answer.read()) == (200, FRIENDS)
                assert answer.headers["ETag"] == etag
                assert answer.headers["Server"] == "Comity"
                assert "no-cache" in answer.headers["Cache-Control"]
            async with session.head(served.root + LISTS) as answer:
                assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(FRIENDS)))
            node = URL(served.root + path("resource-lists", node="resource-lists/list/entry"), encoded=True)
            async with session.get(node, headers={"If-None-Match": etag}) as answer:
                assert answer.status == 304
            entry = b"<entry uri='sip:carol@a.test'/>"
            async with session.put(node, data=entry, headers={"Content-Type": ELEMENT, "If-Match": etag}) as answer:
                assert answer.status == 200
            assert set(await served.house.contacts()) == {"carol"}
            async with session.post(node) as answer:
                assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, PUT, DELETE")
            async with session.delete(served.root + LISTS) as answer:
                assert answer.status == 200
            async with session.get(served.root + LISTS) as answer:
                assert answer.status == 404

    @in_loop
    async def test_sha256_alone_is_offered_if_md5_is_not(self, tmp_path: Path) -> None:
        async with serving(tmp_path, is_md5_offered=False) as served:
            head = f"GET {LISTS} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".encode()
            answer = await raw(served, head)
            assert answer.startswith(b"HTTP/1.1 401 ")
            assert answer.count(b"WWW-Authenticate: Digest") == 1
            assert b"algorithm=SHA-256" in answer
            async with client(served) as session, session.get(served.root + "/xcap-caps/global/index") as got:
                assert got.status == 200

    @in_loop
    async def test_other_peoples_trees_are_closed(self, tmp_path: Path) -> None:
        """ACL-20; existing and unknown users look alike."""
        async with serving(tmp_path) as served, client(served) as session:
            answers = []
            for name in ("bob", "nobody"):
                async with session.get(served.root + path("pres-rules", name)) as answer:
                    answers.append((answer.status, await answer.read()))
            assert answers[0] == answers[1]
            assert answers[0][0] == 403
            async with session.get(f"{served.root}/pres-rules/users/sip:x@elsewhere.test/index") as answer:
                assert answer.status == 404

    @in_loop
    async def test_nobody_without_the_password(self, tmp_path: Path) -> None:
        house = await House(guard=FailureGuard(limit=3)).start()
        async with serving(tmp_path, house) as served:
            for name in ("alice", "nobody"):
                async with client(served, name, "wrong") as session, session.get(served.root + LISTS) as answer:
                    assert answer.status == 401
            assert not house.guard.is_banned("127.0.0.1")
            async with client(served, "alice", "wrong") as session, session.get(served.root + LISTS) as answer:
                assert answer.status == 401
            assert house.guard.is_banned("127.0.0.1")
            async with client(served) as session, session.get(served.root + LISTS) as answer:
                assert answer.status == 403

    @in_loop
    async def test_another_ones_password_opens_ones_own_tree_only(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as served, client(served, "bob") as session:
            async with session.get(served.root + LISTS) as answer:
                assert answer.status == 403
            async with session.get(served.root + "/resource-lists/users/bob/index") as answer:
                assert answer.status == 404


class TestCurl:
    @in_loop
    async def test_the_commands_of_the_how_to_page(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as served:
            file = tmp_path / "friends.xml"
            file.write_bytes(FRIENDS)
            url = served.root + LISTS
            kind = f"Content-Type: {TYPES['resource-lists']}"
            assert await curl(served, "--header", kind, "--upload-file", str(file), url) == (201, b"")
            assert await curl(served, url) == (200, FRIENDS)
            entry = served.root + path("resource-lists", node="resource-lists/list/entry[@uri='sip:carol@a.test']")
            body = "<entry uri='sip:carol@a.test'/>"
            put = ("--request", "PUT", "--header", f"Content-Type: {ELEMENT}", "--data", body)
            assert await curl(served, *put, entry) == (201, b"")
            assert await curl(served, entry) == (200, body.encode())
            assert await curl(served, "--request", "DELETE", entry) == (200, b"")
            assert set(await served.house.contacts()) == {"bob"}

    @in_loop
    async def test_a_long_document_waits_for_its_100(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as served:
            file = tmp_path / "friends.xml"
            many = "".join(f"<entry uri='tel:{number:030}'/>" for number in range(5000))
            file.write_bytes(lists(f"<list>{many}</list>"))
            kind = ("--header", f"Content-Type: {TYPES['resource-lists']}", "--header", "Expect: 100-continue")
            url = served.root + LISTS
            assert (await curl(served, *kind, "--upload-file", str(file), url))[0] == 201
            assert await curl(served, url) == (200, file.read_bytes())

    @in_loop
    async def test_dots_in_a_path_lead_nowhere(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as served:
            for text in ("../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "index/..", "..%2findex", "index%00"):
                url = f"{served.root}/pres-rules/users/sip:alice@a.test/{text}"
                assert (await curl(served, "--path-as-is", url))[0] == 404


class TestUrllib:
    @in_loop
    async def test_a_client_that_looks_at_the_first_challenge_only(self, tmp_path: Path) -> None:
        """COMPAT urllib and what is made of it, such as xcaplib (Blink): it knows MD5 and takes no second challenge."""
        async with serving(tmp_path) as served:
            assert await asyncio.to_thread(_by_urllib, served, "PUT", FRIENDS) == (201, b"")
            assert await asyncio.to_thread(_by_urllib, served, "GET", None) == (200, FRIENDS)


def _by_urllib(served: Served, method: str, body: bytes | None) -> tuple[int, bytes]:
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password("a.test", served.root, "alice", password("alice"))
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=served.client_context()), urllib.request.HTTPDigestAuthHandler(passwords)
    )
    headers = {} if body is None else {"Content-Type": TYPES["resource-lists"]}
    request = urllib.request.Request(served.root + LISTS, body, headers, method=method)
    with opener.open(request, timeout=10) as answer:
        return answer.status, answer.read()


class TestHostilePeers:
    @in_loop
    async def test_a_body_is_not_read_before_the_password(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as served:
            head = f"PUT {LISTS} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000000\r\n\r\n"
            answer = await raw(served, head.encode() + b"x" * 1000)
            assert answer.startswith(b"HTTP/1.1 401 ")

    @pytest.mark.parametrize(
        "head",
        [
            b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 500 + b"\r\n",
            b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"\0\0\0\0\r\n\r\n",
        ],
    )
    @in_loop
    async def test_what_is_no_request_is_refused(self, head: bytes, tmp_path: Path) -> None:
        async with serving(tmp_path) as served:
            answer = await raw(served, head)
            assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))

    @in_loop
    async def test_a_password_in_a_url_with_bad_digest_is_a_bad_request(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as served:
            head = f"GET {LISTS} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nAuthorization: Digest a=b a=b\r\n\r\n"
            assert (await raw(served, head.encode())).startswith(b"HTTP/1.1 400 ")

    @in_loop
    async def test_connections_of_one_address_are_counted(self, tmp_path: Path) -> None:
        """L-01."""
        async with serving(tmp_path, limits=NetLimits(per_address=2)) as served:
            held = [
                await asyncio.open_connection("127.0.0.1", served.port, ssl=served.client_context()) for _ in range(2)
            ]
            with pytest.raises(OSError, match=r".*"):
                await asyncio.open_connection("127.0.0.1", served.port, ssl=served.client_context())
            for _, writer in held:
                writer.close()
                await writer.wait_closed()
            async with asyncio.timeout(5):
                await served.https.idle()
            async with client(served) as session, session.get(served.root + "/xcap-caps/global/index") as answer:
                assert answer.status == 200

    @in_loop
    async def test_who_never_says_a_word_of_tls_does_not_keep_the_server_from_stopping(self, tmp_path: Path) -> None:
        """The handshake has ten seconds, and nothing else stops before it."""
        async with serving(tmp_path) as served:
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            async with client(served) as session, session.get(served.root + "/xcap-caps/global/index"):
                pass  # who came after it was served, so it was accepted
            async with asyncio.timeout(5):
                await served.https.close()
            assert served.network.gate.total == 0
            writer.close()

    @in_loop
    async def test_plain_http_is_not_spoken(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            async with asyncio.timeout(5):
                assert b"HTTP" not in await reader.read()
            writer.close()
