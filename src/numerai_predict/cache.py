"""Files that any number of runs share: NumerAPI's for one round, others while their server has them.

cache_dir/round-1234/v5.2/live.parquet       the file
cache_dir/round-1234/v5.2/live.parquet.json  {"size": …, "sha256": …}, written after it
cache_dir/round-1234/v5.2/live.parquet.lock  held by the run that looks or downloads
cache_dir/url-0123456789abcdef/live.parquet  the same by address; its note has a "validator" as well
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from numerai_predict.errors import UsageError

log = logging.getLogger(__name__)

UNUSED_SECONDS = 7 * 24 * 3600  # after which a file of an address goes

Refresh = Callable[[Path, str], str]


def get(folder: Path, number: int, name: str, fetch: Callable[[Path], Path]) -> Path:
    """A file of a round, downloaded only if the cache has it not, or not whole.

    Args:
        folder: the cache.
        number: the round.
        name: the file's path in the round's folder.
        fetch: downloads to the path it is given, by an atomic rename.

    Raises:
        UsageError: the cache cannot be written.
    """
    target = folder / f"round-{number}" / name
    with _sole(folder, target):
        if (note := _read(target)) and note == _measure(target):
            log.info("Using %s of round %d from %s", name, number, target)
            return target
        fetch(target)
        _note(target, _measure(target))
        _remove_other_rounds(folder, number)
    return target


def get_current(folder: Path, address: str, name: str, refresh: Refresh) -> Path:
    """A file of an address, downloaded only if its server has another one than the cache.

    Args:
        folder: the cache.
        address: without what changes from one run to the next.
        name: the file's.
        refresh: gets the path and the validator of the whole file that is there, "" for none;
            downloads by an atomic rename unless that is still right, and returns the validator.

    Raises:
        UsageError: the cache cannot be written.
    """
    digest = hashlib.sha256(address.encode()).hexdigest()
    target = folder / f"url-{digest[:16]}" / name
    with _sole(folder, target):
        note = _read(target)
        known = str(note.pop("validator", "")) if note else ""
        if note != _measure(target):
            known = ""
        validator = refresh(target, known)
        if not known or validator != known:
            _note(target, {**_measure(target), "validator": validator})
        os.utime(target.parent)
        _remove_unused(folder)
    return target


@contextmanager
def _sole(folder: Path, target: Path) -> Iterator[None]:
    """The one run that looks after this file."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{target}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UsageError(f"cannot use the cache in {folder}: {error.strerror}") from None


def _note(target: Path, note: dict[str, object]) -> None:
    path = _note_path(target)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.write_text(json.dumps(note))
    temporary.replace(path)


def _note_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _read(target: Path) -> dict[str, object]:
    """What the note says; empty where there is none that can be read."""
    try:
        note = json.loads(_note_path(target).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _measure(target: Path) -> dict[str, object]:
    """Empty where there is no file."""
    digest = hashlib.sha256()
    try:
        with target.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            return {"size": file.tell(), "sha256": digest.hexdigest()}
    except FileNotFoundError:
        return {}


def _remove_other_rounds(folder: Path, number: int) -> None:
    for old in folder.iterdir():
        match = re.fullmatch(r"round-(\d+)", old.name)
        # A later round is another run's, which asked after us.
        if match and int(match[1]) < number and old.is_dir() and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)


def _remove_unused(folder: Path) -> None:
    for old in folder.glob("url-" + "?" * 16):
        if old.stat().st_mtime < time.time() - UNUSED_SECONDS and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
