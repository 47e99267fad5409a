#!/usr/bin/env python3
"""Atheris target: whatever the octets of ``comity.toml``, a configuration or sentences, nothing else.

python fuzz/fuzz_config.py -max_len=2048 CORPUS_DIR
"""

from __future__ import annotations

import os
from pathlib import Path

from run import run

from comity.config import Config, read
from comity.errors import ConfigErrors

HEAD = b'[server]\ndomains = ["example.org"]\n'


def one_input(data: bytes) -> None:
    """Read ``data`` alone, and below a good beginning so that the fuzzer gets past the first section."""
    for octets in (data, HEAD + data):
        descriptor = os.memfd_create("config")
        try:
            path = Path(f"/proc/self/fd/{descriptor}")
            path.write_bytes(octets)
            try:
                config = read(path)
                assert isinstance(config, Config)
                assert config.server.domains
                continue
            except ConfigErrors as errors:
                mistakes = errors.mistakes
            assert mistakes
            assert all(mistake.key and mistake.problem for mistake in mistakes)
            assert all(len(str(mistake)) < 2000 for mistake in mistakes if len(mistake.key) < 500)
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    run(one_input)
