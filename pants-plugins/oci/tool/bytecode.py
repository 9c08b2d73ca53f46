"""Compiles Python files to unchecked-hash `.pyc`: never out of date, the same bytes everywhere.

The work is done by an interpreter of the image's own minor version, which runs this file.
"""

from __future__ import annotations

import importlib.util
import os
import py_compile
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Sequence

# Marshal's output depends on what the process has interned before, so files are compiled in fixed
# groups, each in a fresh fork of the same parent.
GROUP = 64


def compile_tree(root: Path, prefix: str, python: Sequence[str]) -> None:
    """Compiles what is below `root`, which the image has at `prefix`.

    Files that do not compile (templates, tests of syntax errors) stay as they are, like pip does.

    Args:
        python: The command that starts an interpreter of the image's minor version.
    """
    argv = (*python, "-sSB", os.path.abspath(__file__), os.fspath(root), prefix)
    # Before 3.11, sets are marshalled in the order of their hashes.
    subprocess.run(argv, env={"PYTHONHASHSEED": "0"}, check=True)


def _compile_here(root: Path, prefix: str) -> None:
    files = sorted(path for path in root.rglob("*.py") if path.is_file())
    groups = [files[i : i + GROUP] for i in range(0, len(files), GROUP)]
    workers = os.cpu_count() or 1
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


if __name__ == "__main__":
    _compile_here(Path(sys.argv[1]), sys.argv[2])
