"""Sabotaged builds: the real program with one place of it made wrong, which the proof has to notice, every time.

Each module is run in place of ``comity``: ``python -m tests.proof.sabotage.NAME serve -c …``. The fourth of
reliability.md section 5.9, ``synchronous=NORMAL`` under power loss, is in ``tests/store``.
"""
