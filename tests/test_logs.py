"""The log of the server: floods counted, control characters escaped, one line an event (L-12, W-12, section 6.1 item 13)."""

from __future__ import annotations

import io
import logging

from comity.cli.logs import OWN_LINES, Collapser, LineFormatter


class Log:
    """A handler as the server has it, writing into a string, its clock moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(LineFormatter("%(levelname)s %(name)s: %(message)s"))
        self.collapser = Collapser(handler, lambda: self.now)
        handler.addFilter(self.collapser)
        self.logger = logging.Logger("a.part")
        self.logger.addHandler(handler)

    def bad_input(self, host: str) -> None:
        self.logger.info("SIP from %s was not understood: %s", host, "no Via", extra={"is_peers": True})

    def lines(self) -> list[str]:
        lines = self.stream.getvalue().splitlines()
        self.stream.seek(0)
        self.stream.truncate()
        return lines


def test_a_million_bad_inputs_are_one_line_a_minute_with_a_count() -> None:
    """L-12: a thousand a second for 1,000 seconds."""
    log = Log()
    lines: list[str] = []
    for second in range(1000):
        for number in range(1000):
            log.bad_input(f"192.0.2.{number % 250}")
        log.now += 1
        if second % 5 == 4:
            log.collapser.report()
    log.collapser.report(is_last=True)
    lines = log.lines()
    assert lines[0] == "INFO a.part: SIP from 192.0.2.0 was not understood: no Via"
    assert lines[1] == "INFO a.part: 59999 more times within 60 s: SIP from 192.0.2.249 was not understood: no Via"
    assert len(lines) == 1 + 1000 // 60 + 1
    assert 1 + sum(int(line.split()[2]) for line in lines[1:]) == 1_000_000


def test_a_quiet_minute_begins_anew() -> None:
    log = Log()
    log.bad_input("192.0.2.1")
    log.now += 60
    log.collapser.report()
    log.bad_input("192.0.2.2")
    log.now += 61
    log.bad_input("192.0.2.3")
    assert len(log.lines()) == 3


def test_kinds_are_apart_and_what_we_say_ourselves_has_some_lines() -> None:
    log = Log()
    for number in range(20):
        log.logger.error("not reloaded: %d", number)
        log.bad_input("192.0.2.1")
    lines = log.lines()
    assert [line for line in lines if "not reloaded" in line] == [
        f"ERROR a.part: not reloaded: {number}" for number in range(OWN_LINES)
    ]
    assert len(lines) == OWN_LINES + 1
    log.collapser.report(is_last=True)
    assert log.lines() == [
        "ERROR a.part: 15 more times within 0 s: not reloaded: 19",
        "INFO a.part: 19 more times within 0 s: SIP from 192.0.2.1 was not understood: no Via",
    ]


def test_the_operator_is_always_answered() -> None:
    log = Log()
    for _ in range(20):
        log.logger.info("reloaded", extra={"is_asked": True})
    assert len(log.lines()) == 20


def test_kinds_that_are_remembered_are_bounded() -> None:
    log = Log()
    for number in range(5000):
        log.logger.info(f"a foreign library's line {number}")
    assert len(log.collapser._kinds) <= 1000


def test_no_peer_writes_to_the_terminal_or_forges_a_line() -> None:
    """W-12."""
    log = Log()
    log.logger.info("from %s", "x\r\n2026 INFO a: forged \x1b[2J\u202e\x85\u2028end")
    try:
        raise ValueError("x\n2026 INFO a: forged \x1b[2J")
    except ValueError:
        log.logger.exception("failed")
    text = log.stream.getvalue()
    assert "\x1b" not in text
    lines = text.split("\n")
    assert lines[0] == "INFO a.part: from x\\u000d\\u000a2026 INFO a: forged \\u001b[2J\\u202e\\u0085\\u2028end"
    assert lines[1] == "ERROR a.part: failed"
    assert all(line.startswith("  | ") for line in lines[2:-1])
