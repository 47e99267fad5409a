"""A person at a terminal: runs the program under a pseudo-terminal of its own and answers its questions."""

from __future__ import annotations

import os
import pty
import select
import sys
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src"
PATIENCE = 30.0


class Conversation:
    """``comity ARGUMENTS`` on a terminal; the child's whole output is in ``said``."""

    def __init__(self, *arguments: str | Path, home: Path) -> None:
        self.said = ""
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "COMITY_HOME": str(home), "TERM": "dumb"}
        command = [sys.executable, "-m", "comity", *map(str, arguments)]
        self._child, self._terminal = pty.fork()
        if self._child == 0:
            os.execvpe(command[0], command, environment)

    def answer(self, question: str, reply: str) -> None:
        """Wait until ``question`` was asked, then type ``reply``."""
        start = len(self.said)
        while question not in self.said[start:]:
            assert self._read(), f"it never asked {question!r}: {self.said}"
        os.write(self._terminal, reply.encode() + b"\n")

    def end(self) -> int:
        """Wait for the end; gives the exit code."""
        while self._read():
            pass
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])

    def _read(self) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], PATIENCE)
        assert ready, f"it said nothing for {PATIENCE} s: {self.said}"
        try:
            found = os.read(self._terminal, 4096)
        except OSError:  # Linux: the child closed its side
            return False
        self.said += found.decode("utf-8", "replace")
        return bool(found)
