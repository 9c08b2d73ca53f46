"""How far a run is: a table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table as RichTable

from numerai_fleet import verdicts
from numerai_fleet.journal import Record

# Seconds between two lines where there is no terminal.
PAUSE = 10.0


class Table:
    """Args: retries: see `follow.Follow`."""

    def __init__(self, retries: int, console: Console | None = None) -> None:
        self.retries = retries
        self.console = console or Console(stderr=True)
        self._live = Live(console=self.console, refresh_per_second=4)
        self._started = time.monotonic()
        self._done_before: int | None = None
        self._last_line = 0.0

    def __enter__(self) -> Table:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def say(self, message: str) -> None:
        self.console.print(message, markup=False, highlight=False)

    def show(self, records: Mapping[str, Record], running: set[str]) -> None:
        """Called often; shows what is worth showing."""
        now = time.monotonic()
        done = [record for record in records.values() if record.is_done(self.retries)]
        if self._done_before is None:
            self._done_before = len(done)
        since = len(done) - self._done_before
        rate = since / max(now - self._started, 1e-9)
        if self.console.is_terminal:
            self._live.update(_table(records, done, len(running), rate))
        elif now - self._last_line > PAUSE:
            self._last_line = now
            self.say(line(records, done, len(running), rate))


def line(records: Mapping[str, Record], done: list[Record], running: int, rate: float) -> str:
    counts = Counter(verdicts.name(record.code) for record in done)
    said = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    left = len(records) - len(done)
    return f"{len(done)} of {len(records)} done ({said or 'none'}), {running} running{_pace(rate, left)}"


def _table(
    records: Mapping[str, Record], done: list[Record], running: int, rate: float
) -> RichTable:
    table = RichTable(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column()
    for name, count in Counter(verdicts.name(record.code) for record in done).most_common():
        table.add_row(str(count), name, style="green" if name == "ok" else "red")
    table.add_row(str(running), "running")
    table.add_row(str(len(records) - len(done) - running), "waiting")
    table.add_row(str(len(records)), f"models{_pace(rate, len(records) - len(done))}")
    return table


def _pace(rate: float, left: int) -> str:
    if not rate or not left:
        return ""
    seconds = left / rate
    return f", {rate * 60:.0f} a minute, {seconds // 60:.0f}:{seconds % 60:02.0f} to go"
