"""Files that stay good for one round, shared by any number of runs.

cache_dir/round-1234/v5.2/live.parquet       the file
cache_dir/round-1234/v5.2/live.parquet.json  {"size": …, "sha256": …}, written after it
cache_dir/round-1234/v5.2/live.parquet.lock  held by the run that looks or downloads
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from numerai_predict.errors import UsageError

log = logging.getLogger(__name__)


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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{target}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_whole(target):
                log.info("Using %s of round %d from %s", name, number, target)
                return target
            fetch(target)
            _write(_note(target), json.dumps(_measure(target)))
        _remove_other_rounds(folder, number)
    except OSError as error:
        raise UsageError(f"cannot use the cache in {folder}: {error.strerror}") from None
    return target


def _note(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _is_whole(target: Path) -> bool:
    try:
        return json.loads(_note(target).read_text()) == _measure(target)
    except (FileNotFoundError, ValueError):
        return False


def _measure(target: Path) -> dict[str, object]:
    digest = hashlib.sha256()
    with target.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return {"size": file.tell(), "sha256": digest.hexdigest()}


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.write_text(text)
    temporary.replace(path)


def _remove_other_rounds(folder: Path, number: int) -> None:
    for old in folder.iterdir():
        match = re.fullmatch(r"round-(\d+)", old.name)
        # A later round is another run's, which asked after us.
        if match and int(match[1]) < number and old.is_dir() and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
