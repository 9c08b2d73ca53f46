"""What the model prints: shown as the model's, line by line, never taken for the program's own."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

SHOWN = 1 << 20  # bytes; more is counted, not shown
MARK = 40  # bytes before a line
LONGEST_LINE = 2_000  # characters
TAIL = 20  # lines


class Output:
    """Reads a process's output in a thread.

    Args:
        pipe: its read end.
        limit: bytes.
        on_excess: called once when there is more.
    """

    def __init__(self, pipe: int, limit: int, on_excess: Callable[[], None]) -> None:
        self.exceeded = False
        self._pipe = pipe
        self._limit = limit
        self._on_excess = on_excess
        self._lines: deque[str] = deque(maxlen=TAIL)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        """Read from now on."""
        self._thread.start()

    def finish(self) -> str:
        """Wait for what is still on its way, if no process holds the pipe open. Returns `tail`."""
        self._thread.join(1)
        return self.tail()

    def tail(self) -> str:
        """The last lines."""
        return "\n".join(self._lines)

    def _read(self) -> None:
        total, shown, rest = 0, 0, b""
        while data := os.read(self._pipe, 1 << 16):
            total += len(data)
            if total > self._limit:
                self.exceeded = True
                self._on_excess()
                break
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            # A line costs more than its text.
            shown += len(data) + MARK * len(lines)
            for line in lines if shown <= SHOWN else lines[-TAIL:]:
                self._show(line, shown <= SHOWN)
        if rest:
            self._show(rest, shown <= SHOWN)
        os.close(self._pipe)

    def _show(self, line: bytes, visible: bool) -> None:
        text = printable(line.decode("utf-8", "replace")[:LONGEST_LINE])
        self._lines.append(text)
        if visible:
            log.info("model| %s", text)


def printable(text: str) -> str:
    """Without what could move a terminal's cursor or change its colours; lines stay."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
