"""The example exchanges of RFC 3340 to 3343 as printed (`rfc334N/SECTION.txt`): who says what, in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
RFCS = (3340, 3341, 3342, 3343)
BEEP_XML = b"Content-Type: application/beep+xml\r\n\r\n"


@dataclass(frozen=True)
class Step:
    """One thing said."""

    name: str
    """"3340 4.4.1 #2": RFC, section, number of the exchange in it."""
    asks: bool
    """True for the lines of "C:"."""
    text: str
    """Lines separated by line feeds, as printed."""
    is_frame: bool
    """The example is a whole BEEP frame, not an element alone."""

    @property
    def payload(self) -> bytes:
        """As a BEEP payload: that of the frame, or the element as application/beep+xml; lines end with CR LF."""
        if not self.is_frame:
            return BEEP_XML + self.text.replace("\n", "\r\n").encode()
        inside = self.text.removesuffix("\nEND").partition("\n")[2]
        return inside.replace("\n", "\r\n").encode() + b"\r\n"

    @property
    def is_well_formed(self) -> bool:
        """False for the one that RFC 3343 misprints."""
        return not re.search(r"<data-content Name='Content'\s*\n\s*<", self.text)


def _of(path: Path, rfc: int) -> Iterator[list[Step]]:
    for number, block in enumerate(path.read_text("utf-8").strip().split("\n\n"), 1):
        name = f"{rfc} {path.stem} #{number}"
        steps = []
        for run in re.findall(r"(?:^C:.*\n?)+|(?:^S:.*\n?)+", block, re.MULTILINE):
            text = "\n".join(line[3:] for line in run.rstrip("\n").split("\n"))
            steps.append(Step(name, run.startswith("C:"), text, text.startswith("MSG ")))
        yield steps


def exchanges() -> list[list[Step]]:
    """All of them: each an asking step and, where one is printed, its answer."""
    paths = [(path, rfc) for rfc in RFCS for path in sorted((FOLDER / f"rfc{rfc}").glob("*.txt"))]
    return [steps for path, rfc in paths for steps in _of(path, rfc)]
