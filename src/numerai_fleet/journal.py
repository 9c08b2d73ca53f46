"""What became of each model, in a file that outlives the submitter.

FOLDER/journal.jsonl has a line for each try that was started and for each that ended. A line is on
disk before what it says is acted upon, so that whoever comes after a kill -9 knows all there is.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numerai_fleet import verdicts
from numerai_fleet.engines.base import Ended


class FolderInUse(Exception):
    """Another submitter runs in this folder."""


@dataclass
class Record:
    """What is known of a model.

    Args:
        tries: how often it ended.
        ended: whether it ever did.
        code: of the last try that ended; see `verdicts`.
        result: the predictor's, of that try.
        message: the engine's, of that try.
        seconds: from the last start to its end, as the submitter saw it.
    """

    tries: int = 0
    ended: bool = False
    code: int | None = None
    result: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    seconds: float = 0.0

    def is_done(self, retries: int) -> bool:
        """Whether it is not to be tried (again)."""
        return self.ended and (verdicts.is_final(self.code) or self.tries > retries)


class Journal:
    """The journal of a folder, for one submitter at a time.

    Attributes:
        records: by the models' names.
        told: the keys of all tries that ended.

    Raises:
        FolderInUse: another process has it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.records: dict[str, Record] = {}
        self.told: set[str] = set()
        self._started: dict[str, float] = {}
        self._file = (folder / "journal.jsonl").open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(f"another numerai-fleet runs in {folder}; wait for its end") from None
        self._file.seek(0)
        self._read(self._file.read())

    def close(self) -> None:
        self._file.close()

    def start(self, names: Iterable[str]) -> None:
        """These are about to be started."""
        self._write([{"event": "started", "name": name, "time": time.time()} for name in names])

    def end(self, ended: Ended) -> None:
        event = {"event": "ended", "time": time.time(), **ended._asdict()}
        self._write([event])

    def _read(self, text: str) -> None:
        # What follows the last end of a line was being written when the machine went down.
        whole, _, torn = text.rpartition("\n")
        for line in whole.split("\n") if whole else ():
            self._apply(json.loads(line))
        if torn:
            os.truncate(self._file.fileno(), len(text[: len(whole) + 1].encode()))

    def _write(self, events: list[dict[str, Any]]) -> None:
        if not events:
            return
        self._file.write("".join(json.dumps(event) + "\n" for event in events))
        self._file.flush()
        os.fsync(self._file.fileno())
        for event in events:
            self._apply(event)

    def _apply(self, event: dict[str, Any]) -> None:
        record = self.records.setdefault(event["name"], Record())
        if event["event"] == "started":
            self._started[event["name"]] = event["time"]
            return
        self.told.add(event["key"])
        record.ended = True
        record.tries += 1
        record.code, record.message = event["code"], event["message"]
        record.result = event["result"] or {}
        record.seconds = event["time"] - self._started.get(event["name"], event["time"])
