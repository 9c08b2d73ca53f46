"""The layers that are made of Python packages."""

from __future__ import annotations

import csv
import io
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Sequence

from .bytecode import compile_tree
from .layer import Tree


def installed_tree(
    requirements: Path,
    uv: Path,
    python: Sequence[str],
    version: str,
    platform: str,
    site_packages: str,
) -> Tree:
    """The packages of a hash-pinned requirements file, at `site_packages` in the image.

    uv installs for the image's Python `version` and `platform`; `python` is the command of an
    interpreter of that version, for this machine. Raises SystemExit where a package has no fitting
    wheel.
    """
    target = Path("installed")
    # fmt: off
    argv = (
        uv.absolute(), "pip", "install", "--quiet", "--target", target, "--requirement", requirements,
        "--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-config",
        "--python", _program(python), "--python-version", version, "--python-platform", platform,
    )
    # fmt: on
    result = subprocess.run([os.fspath(arg) for arg in argv])
    if result.returncode:
        raise SystemExit(
            f"uv could not install {requirements} for Python {version} on {platform}; see above"
        )
    _drop_scripts(target)
    compile_tree(target, site_packages, python)
    return _tree(target, site_packages)


def source_tree(source: Path, python: Sequence[str], site_packages: str) -> Tree:
    """The modules below `source`, at `site_packages` in the image, compiled by the command `python`."""
    compile_tree(source, site_packages, python)
    return _tree(source, site_packages)


def _program(command: Sequence[str]) -> Path:
    """A command as one file: what uv wants an interpreter to be."""
    script = Path("python").absolute()
    folder = shlex.quote(os.getcwd())
    script.write_text(f'#!/bin/sh\ncd {folder} && exec {shlex.join(command)} "$@"\n')
    script.chmod(0o755)
    return script


def _drop_scripts(target: Path) -> None:
    """Console scripts name the interpreter of this machine, and nothing in an image calls them."""
    shutil.rmtree(target / "bin", ignore_errors=True)
    (target / ".lock").unlink(missing_ok=True)
    for record in target.glob("*.dist-info/RECORD"):
        rows = csv.reader(io.StringIO(record.read_text()))
        kept = sorted(row for row in rows if not row[0].startswith("bin/"))
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(kept)
        record.write_text(out.getvalue())


def _tree(folder: Path, site_packages: str) -> Tree:
    tree = Tree()
    tree.add_folder(folder, site_packages.lstrip("/"))
    return tree
