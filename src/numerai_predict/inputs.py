"""The files of a run: fetched side by side, each given to the worker as soon as it is here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from numerai_predict import errors
from numerai_predict.sources import is_url

# Gives a file to the worker: what it is, its descriptor, its name.
Give = Callable[[str, int, str], None]


class Input:
    """A file that the worker needs.

    Args:
        kind: `model`, `dataset` or `benchmarks`.
        source: local path, http(s) URL or, for data, a NumerAPI name.
        fetch: returns a local path for a source that is none.
    """

    def __init__(self, kind: str, source: str, fetch: Callable[[str], Path], give: Give) -> None:
        self.kind = kind
        self.source = source
        self.path: Path | None = None
        self.seconds = 0.0  # until it was here
        self.is_local = not is_url(source) and Path(source).is_file()
        self._error: errors.PredictError | None = None
        self._fetch = fetch
        self._give = give

    def start(self) -> None:
        """Give it to the worker: now, if it is local, else in a thread once it is fetched."""
        if self.is_local:
            self._run()
        else:
            threading.Thread(target=self._run, daemon=True, name=self.kind).start()

    def check(self) -> None:
        """Raise what went wrong so far.

        Raises:
            DownloadFailed: it cannot be had.
            UsageError: a local file cannot be read, or a download cannot be written.
        """
        if self._error is not None:
            raise self._error

    def unreadable(self, why: str) -> errors.PredictError:
        """Whose fault it is that this is no parquet file of live data."""
        kind = errors.UsageError if self.is_local else errors.DownloadFailed
        return kind(f"{self.path} {why}")

    def is_parquet(self) -> bool:
        """Whether it begins and ends as such files do."""
        content = self.path.read_bytes() if self.path else b""
        return content[:4] == content[-4:] == b"PAR1"

    def _run(self) -> None:
        started = time.monotonic()
        try:
            self.path = Path(self.source) if self.is_local else self._fetch(self.source)
            with open(self.path, "rb") as file:
                self.seconds = time.monotonic() - started
                self._give(self.kind, file.fileno(), self.path.name)
        except errors.PredictError as error:
            self._error = error
        except OSError as error:
            self._error = errors.UsageError(
                f"cannot read {self.path or self.kind}: {error.strerror}"
            )
        except Exception as error:
            self._error = errors.InternalError(f"{type(error).__name__} while fetching {self.kind}")
            self._error.__cause__ = error
