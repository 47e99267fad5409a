"""Run a stock client: its own process group, its output kept, every wait with a deadline.

Nothing here knows a protocol. A client gets a pseudo-terminal (or none), a private HOME and a fixed UTF-8 locale,
so that what the machine's user has set up cannot change a test.
"""

from __future__ import annotations

import fcntl
import os
import pty
import random
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

LINES, COLUMNS = 50, 200
"""Size of the pseudo-terminal: wide, so that full-screen clients wrap little."""


def free_port() -> int:
    """A port on loopback that is free for TCP and UDP now, for clients that cannot pick one and tell.

    Below those the kernel gives to whoever asks for any, so that nobody else is given it meanwhile.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            try:
                stream.bind(("127.0.0.1", port))
                datagrams.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port on loopback")


class Program:
    """One child process in a group of its own; what it prints is read as it comes."""

    def __init__(self, name: str, argv: list[str], home: Path, *, terminal: bool, env: dict[str, str] | None = None):
        self.name = name
        self._output = bytearray()
        self._printed = threading.Condition()
        home.mkdir(parents=True, exist_ok=True)
        environment = {
            "HOME": str(home),
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm",
            "TZ": "UTC",
            **(env or {}),
        }
        if terminal:
            self._screen, child_side = pty.openpty()
            fcntl.ioctl(child_side, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
            self._keyboard, child_ends = os.dup(self._screen), [child_side, child_side]
        else:
            self._screen, printing = os.pipe()
            reading, self._keyboard = os.pipe()
            child_ends = [reading, printing]
        stdin, stdout = child_ends
        try:
            self._process = subprocess.Popen(
                argv, stdin=stdin, stdout=stdout, stderr=stdout, cwd=home, env=environment, start_new_session=True
            )
        except BaseException:
            os.close(self._screen)
            os.close(self._keyboard)
            raise
        finally:
            for end in set(child_ends):
                os.close(end)
        self._reader = threading.Thread(target=self._read, name=f"{name} output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                octets = os.read(self._screen, 65536)
            except OSError:  # a pseudo-terminal answers EIO once its last writer is gone
                octets = b""
            with self._printed:
                self._output += octets
                self._printed.notify_all()
            if not octets:
                return

    @property
    def output(self) -> str:
        """Everything printed so far."""
        with self._printed:
            return self._output.decode(errors="replace")

    def type(self, text: str) -> None:
        """Type ``text``, in pieces that a pseudo-terminal's 4 KiB line buffer takes."""
        octets = text.encode()
        while octets:
            if not select.select([], [self._keyboard], [], 10)[1]:
                raise TimeoutError(f"{self.name} does not read what is typed")
            octets = octets[os.write(self._keyboard, octets[:512]) :]

    def wait_until(
        self, look: Callable[[], Found | None], what: str | Callable[[], str], seconds: float = 20.0
    ) -> Found:
        """Call ``look`` until it gives something true, at most ``seconds``; woken by output, else 20 times a second.

        Raises:
            AssertionError: the deadline passed or the program ended; says what was awaited and the last output.
        """
        deadline = time.monotonic() + seconds
        while True:
            ended = self._process.poll() is not None  # before the look: output written before the end counts
            found = look()
            if found:
                return found
            if ended or time.monotonic() > deadline:
                why = f"ended with {self._process.returncode}" if ended else f"{seconds:g} s passed"
                awaited = what if isinstance(what, str) else what()
                raise AssertionError(
                    f"{self.name}: no sign of {awaited} ({why}); it printed last:\n{self.output[-3000:]}"
                )
            with self._printed:
                self._printed.wait(0.05)

    def wait_output(self, text: str, seconds: float = 20.0) -> None:
        """Wait until ``text`` was printed."""
        self.wait_until(lambda: text in self.output, repr(text), seconds)

    def stop(self, ask: int = signal.SIGTERM) -> int:
        """Ask the whole group to end, kill what is left after 3 s, and give the exit status."""
        self._signal(ask)
        try:
            status = self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            status = self._process.wait(10)
        self._signal(signal.SIGKILL)  # helpers that outlived it; they share its group
        self._reader.join(5)
        os.close(self._screen)
        os.close(self._keyboard)
        return status

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return  # the group is gone: what was wanted
