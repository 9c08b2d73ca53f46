"""The interpreters that this machine has, on the search path that Pants itself uses."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Sequence

from pants.core.subsystems import python_bootstrap
from pants.core.subsystems.python_bootstrap import PythonBootstrap
from pants.engine.rules import _uncacheable_rule, collect_rules

from oci.tool.interpreter import LEFT_OUT

# In a virtual environment: of the interpreter that it was made of.
_PROBE = """
import json, os, platform, sys, sysconfig
variable = sysconfig.get_config_var
print(json.dumps({
    "implementation": platform.python_implementation(),
    "version": platform.python_version(),
    "executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "stdlib": [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")],
    "libpython": os.path.join(variable("LIBDIR") or "", variable("INSTSONAME") or ""),
    "special": bool(variable("Py_GIL_DISABLED") or variable("Py_DEBUG")),
}))
"""


@dataclass(frozen=True)
class HostInterpreterRequest:
    version: str


@dataclass(frozen=True)
class HostInterpreter:
    """CPython as this machine has it; `fingerprint` changes with its files."""

    version: str
    executable: str
    stdlib: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class HostInterpreters:
    """The first one of the version that was asked for; `seen` says what there is besides."""

    found: Optional[HostInterpreter]
    seen: str


# Pants watches no files outside of the repository.
@_uncacheable_rule
async def host_interpreters(
    request: HostInterpreterRequest, bootstrap: PythonBootstrap
) -> HostInterpreters:
    paths = bootstrap.interpreter_search_paths
    refused = []
    for candidate in _candidates(paths, request.version):
        found, why = _probed(candidate, request.version)
        if found is not None:
            return HostInterpreters(found, "")
        refused.append(f"{candidate} {why}")
    return HostInterpreters(None, _seen(paths, refused))


def _candidates(paths: Sequence[str], version: str) -> Iterator[str]:
    for path in dict.fromkeys(paths):
        # The search path may name interpreters as well.
        file = path if os.path.isfile(path) else os.path.join(path, f"python{version}")
        if os.path.isfile(file) and os.access(file, os.X_OK):
            yield file


def _probed(candidate: str, version: str) -> tuple[Optional[HostInterpreter], str]:
    argv = (candidate, "-IS", "-c", _PROBE)
    try:
        process = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
        facts = json.loads(process.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None, "does not run"
    if facts["implementation"] != "CPython" or facts["special"]:
        return None, "is no ordinary build of CPython"
    if not facts["version"].startswith(f"{version}."):
        return None, f"is Python {facts['version']}"
    stdlib = tuple(dict.fromkeys(facts["stdlib"]))
    files = (facts["executable"], facts["libpython"])
    fingerprint = _fingerprint(files, stdlib)
    return HostInterpreter(facts["version"], facts["executable"], stdlib, fingerprint), ""


def _fingerprint(files: Sequence[str], folders: Sequence[str]) -> str:
    """Over names, sizes and times; the loader's cache stands for the libraries of the system."""
    total = hashlib.sha256()
    for path in (*files, "/etc/ld.so.cache", *(f for folder in folders for f in _below(folder))):
        if os.path.isfile(path):
            status = os.stat(path)
            total.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return total.hexdigest()


def _below(top: str) -> Iterator[str]:
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        yield from (os.path.join(folder, name) for name in sorted(files))


def _seen(paths: Sequence[str], refused: Sequence[str]) -> str:
    minors = {
        match[1]
        for path in paths
        if os.path.isdir(path)
        for file in Path(path).iterdir()
        if (match := re.fullmatch(r"python(3\.\d+)", file.name))
    }
    ordered = sorted(minors, key=lambda minor: int(minor.partition(".")[2]))
    found = f"[python-bootstrap].search_path has Python {', '.join(ordered) or 'nowhere'}"
    return "; ".join((found, *refused))


def rules():
    return [*collect_rules(), *python_bootstrap.rules()]
