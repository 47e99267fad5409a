"""Durable stores behind one contract, ``comity.service.interfaces.Store``: SQLite by default, memory for trials."""

from comity.store.clock import StoreClock
from comity.store.memory import MemoryStore
from comity.store.sqlite import SqliteStore

__all__ = ["MemoryStore", "SqliteStore", "StoreClock"]
