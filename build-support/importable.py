"""Run in an image: imports the modules of every distribution, each distribution in a new process.

    python importable.py FILE

writes {distribution: {"version": …, "error": …}} to FILE as JSON; the error is "" where all import.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import Distribution
from pathlib import Path, PurePath
from typing import Any


def tried(distribution: Distribution) -> dict[str, Any]:
    argv = [sys.executable, "-B", "-c", f"import {', '.join(modules(distribution)) or 'sys'}"]
    # Elsewhere, because a new process imports from the working directory first.
    done = subprocess.run(argv, cwd="/", capture_output=True, text=True, errors="replace")
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return {"version": distribution.version, "error": lines[-1] if done.returncode else ""}


def modules(distribution: Distribution) -> list[str]:
    """The public ones at the top; of namespace packages, such as google, those at their top."""
    files = [
        file
        for file in distribution.files or ()
        if file.suffix == ".py" or file.suffix == ".so" and len(file.parts) == 1
    ]
    packages: set[PurePath] = {file.parent for file in files if file.name == "__init__.py"}
    found = {".".join(top(file, packages).parts) for file in files}
    return sorted(name for name in found if re.fullmatch(r"([a-zA-Z]\w*\.)*[a-zA-Z]\w*", name))


def top(file: PurePath, packages: set[PurePath]) -> PurePath:
    """The outermost package that a file is in; else the module that it is."""
    above = [folder for folder in file.parents if folder in packages]
    return above[-1] if above else file.with_name(file.name.partition(".")[0])


def main(output: str) -> None:
    distributions = list(importlib.metadata.distributions())
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        results = threads.map(tried, distributions)
        found = {canonical(each.name): result for each, result in zip(distributions, results)}
    Path(output).write_text(json.dumps(found, indent=1, sort_keys=True))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(sys.argv[1])
