"""Who waits for which lanes, inside this process: ``Store.watch`` for every engine that has no better.

Takes lane names after they are durable, gives them to iterators. A name that waits to be taken is not queued
twice, so a slow watcher costs at most one entry per lane.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from weakref import WeakSet


class Watch:
    """Lane names under one prefix, from the moment it was made; ends when the store closes."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._names: dict[str, None] = {}
        self._changed = asyncio.Event()
        self._is_closed = False

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> str:
        while not self._names:
            if self._is_closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        name = next(iter(self._names))
        del self._names[name]
        return name

    def tell(self, lanes: Iterable[str]) -> None:
        """Queue the names this watch is about."""
        for lane in lanes:
            if lane.startswith(self._prefix):
                self._names[lane] = None
        if self._names:
            self._changed.set()

    def close(self) -> None:
        """End the iteration once the queued names are taken."""
        self._is_closed = True
        self._changed.set()


class Watchers:
    """Every living watch; one that nobody holds any more is forgotten."""

    def __init__(self) -> None:
        self._all: WeakSet[Watch] = WeakSet()
        self._is_closed = False

    def add(self, prefix: str) -> Watch:
        """Make a watch of the lanes that begin with ``prefix``."""
        watch = Watch(prefix)
        self._all.add(watch)
        if self._is_closed:
            watch.close()
        return watch

    def tell(self, lanes: Iterable[str]) -> None:
        """Tell all that these lanes got a record or a Wake."""
        if self._all:
            for watch in list(self._all):
                watch.tell(lanes)

    def close(self) -> None:
        """End every iteration."""
        self._is_closed = True
        for watch in list(self._all):
            watch.close()
