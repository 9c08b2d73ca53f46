"""`make notebook_pickle`: runs a Jupyter notebook with the Python and the packages of an image, and keeps
the pickles that it makes.

The notebook runs in dist/notebooks/NAME, where what it downloads stays for the next time.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uv import find_uv_bin

EXPORTS = Path("3rdparty/python")
KERNEL = EXPORTS / "tools/notebook.txt"
# Programs for the environment's own interpreter.
CELLS = Path("build-support/notebook_cells.py")
PIP = Path("build-support/notebook_pip.py")

INSTALL = ("pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:", "--no-deps")

# What would lead the notebook's interpreter, or a uv that it calls, to packages from elsewhere.
FOREIGN = ("PYTHON", "PEX", "VIRTUAL_ENV", "JUPYTER")


def main() -> None:
    lists = runpy.run_path(str(EXPORTS / "pythons.py"))
    tabular, more = lists["TABULAR_LAYERS"], lists["FULL_LAYERS"]
    layers = {"tabular": tabular, "full": (*tabular, *more)}
    options = arguments(lists["PYTHONS"], tuple(layers))
    check(options.notebook, options.python)
    name = f"py{options.python.replace('.', '')}"
    pins = [EXPORTS / name / f"{layer}.txt" for layer in layers[options.flavour]]
    environment = made(options.python, options.flavour, [*pins, KERNEL])
    folder = Path("dist/notebooks", options.notebook.stem)
    folder.mkdir(parents=True, exist_ok=True)
    before = pickles(folder)
    print(f"{options.notebook} with Python {options.python}, in {folder}:", flush=True)
    run(environment, options.notebook, folder)
    new = [path for path, time in pickles(folder).items() if before.get(path) != time]
    if not new:
        sys.exit(
            f"{options.notebook} ran, but left no *.pkl or *.pickle in {folder}. This makes one:\n"
            '    with open("model.pkl", "wb") as file: cloudpickle.dump(predict, file)'
        )
    image = name if options.flavour == "tabular" else f"{name}-{options.flavour}"
    for path in new:
        report(kept(path, folder, options.output or folder), image)


def arguments(pythons: tuple[str, ...], flavours: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="notebook_pickle", description=__doc__)
    parser.add_argument("notebook", type=Path, help="an .ipynb file")
    parser.add_argument("--python", choices=pythons, default="3.11", help="default: %(default)s")
    parser.add_argument(
        "--flavour", choices=flavours, default="tabular", help="of the image (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="folder for pickles (default: the notebook's)")
    return parser.parse_args()


def check(notebook: Path, python: str) -> None:
    """What can be known before anything is installed."""
    if not notebook.is_file():
        sys.exit(f"There is no notebook {notebook}.")
    try:
        document = json.loads(notebook.read_text(encoding="utf-8"))
        metadata, _ = document["metadata"], document["nbformat"]
    except (ValueError, TypeError, KeyError):
        sys.exit(f"{notebook} is not a Jupyter notebook.")
    language = metadata.get("language_info", {})
    name = language.get("name") or metadata.get("kernelspec", {}).get("language") or "python"
    if name != "python":
        sys.exit(f"{notebook} is a notebook of {name}, not of Python.")
    saved = ".".join(language.get("version", python).split(".")[:2])
    if saved != python:
        print(
            f"warning: {notebook} was saved by Python {saved}, and runs with {python} here; a "
            f"pickle fits only the Python that made it. PYTHON={saved} takes the other.",
            file=sys.stderr,
        )


def made(python: str, flavour: str, pins: list[Path]) -> Path:
    """An environment with exactly the pinned packages; kept while these, and its interpreter, stay."""
    base = interpreter(python)
    key = hashlib.sha256(base.encode())
    for file in [*pins, PIP]:
        key.update(file.read_bytes())
    folder = Path(".setup/notebooks", f"{python}-{flavour}").absolute()
    stamp = folder / "key"
    with locked(folder.with_suffix(f"{folder.suffix}.lock")):
        if not stamp.exists() or stamp.read_text() != key.hexdigest():
            print(f"installing the {flavour} image's packages into {folder} (once)", flush=True)
            uv("venv", "--quiet", "--clear", "--python", base, folder)
            at = ("--python", folder / "bin/python")
            uv(*INSTALL, *at, *(f"--requirement={file}" for file in pins))
            add_pip(folder, python)
            stamp.write_text(key.hexdigest())
    return folder


def interpreter(python: str) -> str:
    """Where Pants looks too: pyenv's newest, else the PATH's; uv also knows those that it installed."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    of_pyenv = [path for path in pyenv.glob(f"versions/{python}.*") if patch(path) is not None]
    if of_pyenv:
        return str(max(of_pyenv, key=lambda path: patch(path) or 0) / f"bin/python{python}")
    find = (find_uv_bin(), "python", "find", "--system", "--no-project", "--no-python-downloads")
    found = subprocess.run([*find, python], capture_output=True, text=True)
    if found.returncode:
        sys.exit(
            f"There is no Python {python} here. `pyenv install {python}` or `uv python install "
            f"{python}` installs it."
        )
    return found.stdout.strip()


def patch(folder: Path) -> int | None:
    """The 7 of pyenv's 3.11.7; None for folders of other kinds, such as 3.13.0t."""
    found = re.fullmatch(r"3\.\d+\.(\d+)", folder.name)
    return int(found[1]) if found else None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def uv(*argv: object) -> None:
    if code := subprocess.run([find_uv_bin(), *map(str, argv)]).returncode:
        sys.exit(code)


def add_pip(environment: Path, python: str) -> None:
    """For `!pip install` and `%pip install`, with which notebooks begin."""
    shutil.copy(PIP, environment / f"lib/python{python}/site-packages/pip.py")
    for name in ("pip", "pip3"):
        script = environment / "bin" / name
        script.write_text('#!/bin/sh\nexec "${0%/*}/python" -m pip "$@"\n')
        script.chmod(0o755)


def pickles(folder: Path) -> dict[Path, int]:
    """Path -> nanoseconds when it was last changed."""
    files = [path for pattern in ("*.pkl", "*.pickle") for path in folder.rglob(pattern)]
    return {path: path.stat().st_mtime_ns for path in sorted(files)}


def run(environment: Path, notebook: Path, folder: Path) -> None:
    """Ends this program when a cell fails."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    own["PATH"] = f"{environment / 'bin'}{os.pathsep}{own.get('PATH', os.defpath)}"
    # The user's own kernels may have the name of this one.
    own["JUPYTER_DATA_DIR"] = str(environment / "share/jupyter")
    argv = [environment / "bin/python", CELLS, notebook, folder]
    if subprocess.run(argv, env=own).returncode:
        sys.exit(
            f"\n{folder / notebook.name} has all that was printed. Files that the notebook reads must "
            f"lie in {folder}."
        )


def kept(pickle: Path, folder: Path, output: Path) -> Path:
    copy = output / pickle.relative_to(folder)
    if output.resolve() != folder.resolve():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pickle, copy)
    return copy.resolve()


def report(pickle: Path, image: str) -> None:
    folder, here = shlex.quote(str(pickle.parent)), Path.cwd()
    repository = "numerai_predict_py_3_" + image.removeprefix("py3").replace("-", "_")
    print(f"\n{pickle} has {pickle.stat().st_size:,} bytes. Run it:\n")
    print(f"    docker run -i --rm -v {folder}:{folder} {repository} --debug \\")
    print(f"        --model {shlex.quote(str(pickle))}")
    if pickle.is_relative_to(here):
        model = shlex.quote(str(pickle.relative_to(here)))
        print(f"\nor, without Docker:\n\n    ./pants run images:{image} -- --debug --model {model}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
