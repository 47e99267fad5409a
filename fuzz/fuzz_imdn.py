#!/usr/bin/env python3
"""Atheris target: any octets give a notification or MalformedMessage; what is read can be written and read again.

python fuzz/fuzz_imdn.py -max_len=4096 CORPUS_DIR
"""

from __future__ import annotations

from run import run

from comity.cpim.imdn import notification_in, parse_imdn, wishes_of
from comity.cpim.message import CpimMessage
from comity.errors import MalformedMessage


def one_input(data: bytes) -> None:
    try:
        said = parse_imdn(data)
        assert parse_imdn(said.document()) == said
    except MalformedMessage:
        pass
    try:
        view = CpimMessage.parse(data)
        wishes_of(view)
        notification_in(view)
    except MalformedMessage:
        pass


if __name__ == "__main__":
    run(one_input)
