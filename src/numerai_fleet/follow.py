"""Takes a manifest's models to their ends: starts what there is room for, follows, tries again."""

from __future__ import annotations

import time
from collections.abc import Sequence

from numerai_fleet import verdicts
from numerai_fleet.engines.base import Ended, Engine
from numerai_fleet.journal import Journal, Record
from numerai_fleet.manifest import Model
from numerai_fleet.table import Table

# Seconds before a try after the platform's fault; doubles with each.
BACKOFF = 2.0


class Follow:
    """One submitter's run.

    Args:
        retries: how often a model is tried again after what is not its own fault.
    """

    def __init__(
        self, models: Sequence[Model], engine: Engine, journal: Journal, table: Table, retries: int
    ) -> None:
        self.models = {model.name: model for model in models}
        self.engine = engine
        self.journal = journal
        self.table = table
        self.retries = retries
        self.running: set[str] = set()
        self._not_before: dict[str, float] = {}

    def run(self) -> dict[str, Record]:
        """Returns what became of each model, once that is known of all.

        Raises:
            EngineError: the engine cannot be used.
        """
        # What an earlier submitter started goes on; what ended since then is the engine's to tell.
        self.running = self.engine.running() & self.models.keys()
        with self.table:
            while True:
                for ended in self.engine.ended():
                    self._end(ended)
                self._start()
                self.table.show(self._records(), self.running)
                if not self.running and not self._open():
                    self.engine.ended()
                    return self._records()
                time.sleep(self.engine.pause)

    def _end(self, ended: Ended) -> None:
        if ended.name not in self.models or ended.key in self.journal.told - {""}:
            return  # of another manifest, or an earlier submitter noted it
        if self._record(ended.name).is_done(self.retries):
            return  # the first word counts
        self.journal.end(ended)
        self.running.discard(ended.name)
        record = self._record(ended.name)
        if not record.is_done(self.retries):
            wait = BACKOFF * 2 ** (record.tries - 1)
            self._not_before[ended.name] = time.monotonic() + wait
            self.table.say(
                f"{ended.name}: {verdicts.name(ended.code)}, is tried again in {wait:.0f} s"
            )

    def _start(self) -> None:
        now = time.monotonic()
        ready = [name for name in self._open() if self._not_before.get(name, 0) <= now]
        chosen = ready[: max(self.engine.room(), 0)]
        if chosen:
            self.journal.start(chosen)
            self.running.update(chosen)
            self.engine.start([self.models[name] for name in chosen])

    def _open(self) -> list[str]:
        """Models that are to be started, now or later."""
        return [
            name
            for name in self.models
            if name not in self.running and not self._record(name).is_done(self.retries)
        ]

    def _record(self, name: str) -> Record:
        return self.journal.records.get(name, Record())

    def _records(self) -> dict[str, Record]:
        return {name: self._record(name) for name in self.models}
