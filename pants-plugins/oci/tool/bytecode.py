"""Compiles Python files to unchecked-hash `.pyc`: never out of date, the same bytes everywhere.

Must run with the very interpreter that the image holds.
"""

from __future__ import annotations

import importlib.util
import os
import py_compile
import sys
import warnings
from pathlib import Path
from typing import Sequence

# Marshal's output depends on what the process has interned before, so files are compiled in fixed
# groups, each in a fresh fork of the same parent.
GROUP = 64


def compile_tree(root: Path, prefix: str) -> None:
    """Compiles what is below `root`, which the image has at `prefix`.

    Files that do not compile (templates, tests of syntax errors) stay as they are, like pip does.
    """
    files = sorted(path for path in root.rglob("*.py") if path.is_file())
    groups = [files[i : i + GROUP] for i in range(0, len(files), GROUP)]
    workers = os.cpu_count() or 1
    sys.stdout.flush()
    sys.stderr.flush()
    for running, group in enumerate(groups):
        if running >= workers:
            _wait()
        if os.fork() == 0:
            _compile_group(group, root, prefix)
    for _ in groups[-workers:]:
        _wait()


def _compile_group(files: Sequence[Path], root: Path, prefix: str) -> None:
    status = 1
    try:
        warnings.simplefilter("ignore")
        for file in files:
            _compile(file, f"{prefix}/{file.relative_to(root).as_posix()}")
        status = 0
    finally:
        os._exit(status)


def _compile(file: Path, name: str) -> None:
    try:
        py_compile.compile(
            str(file),
            cfile=importlib.util.cache_from_source(str(file)),
            dfile=name,
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    except (py_compile.PyCompileError, UnicodeDecodeError, ValueError, RecursionError):
        pass


def _wait() -> None:
    _, status = os.wait()
    if status:
        raise RuntimeError("compiling Python files failed; see above")
