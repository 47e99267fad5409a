#!/usr/bin/env python3
"""Any BEEP payload is an element of APEX or refused with one of its codes; what is read is written as the same, content octet for octet."""

from __future__ import annotations

from run import run

from comity.bindings.apex.elements import Data, Inline
from comity.bindings.apex.grammar import WireError
from comity.bindings.apex.service_wire import read_service, write_service
from comity.bindings.apex.wire import read_message, read_option_content, read_ride, write_message


def known(error: WireError) -> None:
    if error.code not in (0, 500, 501, 504, 554):
        raise error


def one_input(data: bytes) -> None:
    for read in (read_message, read_ride):
        try:
            element = read(data)
        except WireError as error:
            known(error)
            continue
        assert read_message(write_message(element)) == element
        if isinstance(element, Data):
            look_inside(element)
            return


def look_inside(data: Data) -> None:
    for option in data.options:
        try:
            read_option_content(option, "dataTiming")
            read_option_content(option, "dataHopping")
        except WireError as error:
            known(error)
    try:
        said = read_service(data.content)
    except WireError as error:
        known(error)
        return
    assert read_service(Inline(write_service(said))) == said


if __name__ == "__main__":
    run(one_input)
