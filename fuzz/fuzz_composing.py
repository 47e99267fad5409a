#!/usr/bin/env python3
"""Atheris target: any octets give a typing state or MalformedMessage; any body of a SIP request is decoded or refused.

python fuzz/fuzz_composing.py -max_len=4096 CORPUS_DIR
"""

from __future__ import annotations

from run import run

from comity.bindings.sip.coding import MOST_DECODED, decoded
from comity.bindings.sip.message import SipRequest
from comity.cpim.composing import parse_composing
from comity.errors import MalformedMessage, RemoteProtocolError


def one_input(data: bytes) -> None:
    try:
        said = parse_composing(data)
        assert parse_composing(said.document()).is_active is said.is_active
    except MalformedMessage:
        pass
    for coding in ("gzip", "deflate", "gzip, deflate"):
        try:
            body = decoded(SipRequest("MESSAGE", "sip:a@b", [("Content-Encoding", coding)], data)).body
            assert len(body) <= MOST_DECODED
        except RemoteProtocolError as error:
            if error.hint not in ("400", "413", "415"):
                raise


if __name__ == "__main__":
    run(one_input)
