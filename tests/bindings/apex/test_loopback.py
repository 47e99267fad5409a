"""The relay on real sockets, by an application that knows nothing of our code (``tests/interop/apex_peer.py``)."""

from __future__ import annotations

import ssl
from pathlib import Path

from tests.interop.apex_peer import Application
from tests.paths.kit import PASSWORD, ServerProcess

ALICE, BOB = "alice@a.test", "bob@a.test"


def application(server: ServerProcess, account: str, *, at_once: bool = False) -> Application:
    """Signed in under TLS, by the tuning profile or from the first octet, and attached."""
    tls = ssl.create_default_context(cafile=str(server.authority))
    made = Application(*server.port("apex", "tls" if at_once else "tcp"), tls=tls, name="a.test", at_once=at_once)
    made.sign_in(account, PASSWORD)
    made.attach(account)
    return made


def test_a_message_waits_over_a_kill_and_its_report_too(tmp_path: Path) -> None:
    """APEX-7, APEX-8, APEX-11, APEX-14: TLS, SASL, attach on start, data, kill -9, data, statusResponse."""
    content = b"GIF89a\x00\r\n\xffEND\r\n"
    asked = "<option internal='statusRequest' mustUnderstand='true' transID='86' />"
    with ServerProcess(tmp_path) as server:
        server.start()
        with application(server, ALICE) as alice:
            alice.data(ALICE, BOB, part=(b"Content-Type: image/gif\r\n", content), options=asked)
        server.kill()
        server.start()
        with application(server, ALICE, at_once=True) as alice, application(server, BOB) as bob:
            got = bob.receive()
            assert (got.body, got.header("content-type"), got.originator) == (content, "image/gif", ALICE)
            report = alice.receive()
            assert report.originator == "apex=report@a.test"
            assert report.inline is not None
            assert [(one.tag, one.get("transID"), one.get("code")) for one in report.inline[0].iter()] == [
                ("statusResponse", "86", None),
                ("destination", None, None),
                ("reply", None, "250"),
            ]
            assert server.stop() == 0
