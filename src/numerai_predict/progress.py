"""Shows how far a transfer is: a bar on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

log = logging.getLogger(__name__)

LINE_EVERY = 10.0  # seconds


class Progress:
    """The bytes of one download. To be used in a `with` statement.

    Args:
        what: its short name, for example "model".
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.done = 0  # bytes
        self.total: int | None = None
        self._start = self._line = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from tqdm import tqdm

            tqdm.monitor_interval = 0  # no thread that outlives the bars
            # Several bars at a time find their lines by themselves.
            self._bar = tqdm(desc=self.what, unit="B", unit_scale=True, leave=False)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def at(self, done: int, total: int | None) -> None:
        """Note where the download is, `done` of `total` bytes; it may also fall back."""
        self.done, self.total = done, total
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._line >= LINE_EVERY:
            self._line = time.monotonic()
            of = f" of {total / 1e6:.1f}" if total else ""
            log.info("%s: %.1f%s MB in %.0f s", self.what, done / 1e6, of, self.seconds)
