"""The layer of an interpreter that is no Debian package: an archive's, or the build machine's own.

Either becomes the same tree below /usr/local, in which CPython finds its standard library by itself.
Archives are those of python-build-standalone: gzipped tars of one folder, python/.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Dict, Iterable, Optional, Sequence

from .elf import read_elf
from .layer import Entry, Tree
from .ldcache import ld_so_cache, shared_libraries
from .python import add_compiled

PREFIX = "usr/local"

# Made anew, or not the interpreter's own.
LEFT_OUT = frozenset(("__pycache__", "site-packages", "dist-packages"))

# Modules that hold, as data, the folders in which an interpreter was built.
BUILD_DATA = re.compile(r"(_sysconfigdata_.*\.py|_sysconfig_vars_.*\.json|build-details\.json)$")

# Where python-build-standalone has the compiler, and what it links statically.
RELEASE_TOOLS = "/tools"


@dataclass(frozen=True)
class Interpreter:
    """Executable and standard library in `tree`; `libraries` that it may need, by soname.

    `missing` are the needs that nothing met, such as `lib-dynload/_ssl.so: libssl.so.1.1`, by soname.
    """

    tree: Tree
    libraries: Dict[str, Entry]
    missing: Dict[str, str]


def archived(archive: Path, version: str, omit: Sequence[str]) -> Interpreter:
    """The interpreter that an archive holds.

    Raises SystemExit where the archive is damaged, or is not of the minor `version`.
    """
    tree = _read_archive(archive)
    found = [path for path in tree.entries if re.fullmatch(r"python/bin/python3\.\d+", path)]
    if f"python/bin/python{version}" not in found:
        names = ", ".join(sorted(PurePosixPath(path).name for path in found)) or "no interpreter"
        raise SystemExit(f"{archive.name} holds {names}; python{version} was asked for")
    own = Tree()
    for path, entry in tree.entries.items():
        inside = PurePosixPath(path).relative_to("python").as_posix()
        if inside == f"bin/python{version}" or inside.startswith(f"lib/python{version}/"):
            own.add(f"{PREFIX}/{inside}", entry)
    libraries = {
        PurePosixPath(path).name: entry
        for path, entry in tree.files()
        if re.fullmatch(r"python/lib/[^/]+\.so[.0-9]*", path)
    }
    own = own.without(omit)
    return Interpreter(own, _needed(own, libraries), {})


def _read_archive(archive: Path) -> Tree:
    tree = Tree()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if not LEFT_OUT.isdisjoint(PurePosixPath(member.name).parts):
                    continue
                if member.issym():
                    tree.link(member.name, member.linkname)
                elif member.isfile() or member.islnk():
                    content = tar.extractfile(member)
                    assert content is not None, "a file has content"
                    executable = member.mode & stat.S_IXUSR
                    tree.file(member.name, content.read(), 0o755 if executable else 0o644)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise SystemExit(
            f"{archive.name} is no complete archive of an interpreter: {error}"
        ) from None
    return tree


def _needed(tree: Tree, libraries: Dict[str, Entry]) -> Dict[str, Entry]:
    """Those of `libraries` that the tree's programs and modules need, and that these need."""
    needed: Dict[str, Entry] = {}
    unread = [entry for _, entry in tree.files()]
    while unread:
        elf = read_elf(unread.pop().read())
        # The needs of relocatable programs are paths.
        names = {PurePosixPath(need).name for need in elf.needed} if elf else set()
        for name in names & (libraries.keys() - needed.keys()):
            needed[name] = libraries[name]
            unread.append(libraries[name])
    return needed


def copied(
    executable: Path, stdlibs: Sequence[Path], version: str, omit: Sequence[str]
) -> Interpreter:
    """The build machine's own interpreter; `stdlibs` are its folders of pure and of compiled modules."""
    tree = Tree()
    tree.file(f"{PREFIX}/bin/python{version}", executable, 0o755)
    for stdlib in dict.fromkeys(stdlibs):
        for folder, folders, files in os.walk(stdlib):
            folders[:] = sorted(set(folders) - LEFT_OUT)
            inside = Path(folder).relative_to(stdlib).as_posix()
            for name in files:
                path = os.path.normpath(f"{PREFIX}/lib/python{version}/{inside}/{name}")
                tree.file(path, Path(folder, name), 0o644)
    tree = tree.without(omit)
    programs = {
        entry.content: path
        for path, entry in tree.files()
        if isinstance(entry.content, Path) and (path.endswith(".so") or entry.mode == 0o755)
    }
    libraries: Dict[str, Entry] = {}
    missing: Dict[str, str] = {}
    for program, needs in linked([*programs]).items():
        for soname, library in needs.items():
            if library:
                libraries[soname] = Entry(0o644, Path(library))
            else:
                missing[soname] = f"{programs[program]} needs {soname}"
    return Interpreter(tree, libraries, missing)


def linked(programs: Sequence[Path]) -> Dict[Path, Dict[str, str]]:
    """The libraries that this machine's loader takes for each program: path by soname, "" if none."""
    ldd = shutil.which("ldd", path=os.defpath)
    if ldd is None:
        raise SystemExit("ldd, which knows the libraries of the build machine, is not installed")
    argv = [ldd, *map(os.fspath, programs)]
    # Fails where one of them is linked statically.
    printed = subprocess.run(argv, capture_output=True, text=True, env={"LC_ALL": "C"}).stdout
    return _read_ldd(printed, programs)


def _read_ldd(printed: str, programs: Sequence[Path]) -> Dict[Path, Dict[str, str]]:
    found: Dict[Path, Dict[str, str]] = {program: {} for program in programs}
    program = programs[0]  # of which, if it is alone, no line says the name
    for line in printed.splitlines():
        if line.endswith(":") and not line.startswith("\t"):
            program = Path(line[:-1])
        match = re.fullmatch(r"\t(\S+) => (not found|\S+).*", line)
        if match:
            found[program][match[1]] = "" if match[2] == "not found" else match[2]
    return found


def interpreter_tree(
    interpreter: Interpreter,
    version: str,
    below: Iterable[Tree],
    triplet: str,
    python: Sequence[str],
) -> Tree:
    """The layer, on top of the layers `below`; modules are compiled by the command `python`.

    Raises SystemExit where a library that is needed is neither in those layers nor to be had.
    """
    lower: Dict[str, Entry] = {}
    for layer in below:
        lower.update(layer.entries)
    libraries = shared_libraries(Tree(lower), triplet)
    provided = {*libraries.values()}
    missing = [need for soname, need in interpreter.missing.items() if soname not in provided]
    if missing:
        raise SystemExit(
            "Libraries of the interpreter are nowhere to be found; install them, or leave out the "
            "modules (the target's `omit`):\n  " + "\n  ".join(sorted(missing))
        )
    tree = Tree(dict(interpreter.tree.entries))
    stdlib = f"{PREFIX}/lib/python{version}"
    for soname, library in interpreter.libraries.items():
        if soname not in provided:
            tree.file(f"{PREFIX}/lib/{soname}", library.read())
            libraries[f"/{PREFIX}/lib/{soname}"] = soname
    tree.file("etc/ld.so.cache", ld_so_cache(libraries, triplet))
    # Absolute: of a relative one Python 3.10 would make its prefix, /usr/bin/../local.
    tree.link("usr/bin/python3", f"/{PREFIX}/bin/python{version}")
    tree.folder(f"{stdlib}/site-packages")
    if b"dist-packages" in tree.entries[f"{stdlib}/site.py"].read():
        # Debian's interpreters call the folder otherwise.
        tree.link(f"{stdlib}/dist-packages", "site-packages")
    forget_build_folders(tree)
    add_compiled(tree, python)
    return tree


def interpreter_facts(
    interpreter: Interpreter, tree: Tree, version: str, archive: Optional[Path]
) -> Dict[str, Any]:
    """What the layer `tree` has that is no Debian package.

    `version` exactly, `sha256` of the `file` that it came as: the archive, or the executable of the
    build machine. `libraries` {path: sha256} were copied because no layer below has them.
    """
    executable = f"{PREFIX}/bin/python{'.'.join(version.split('.')[:2])}"
    content = archive.read_bytes() if archive else tree.entries[executable].read()
    copies = [f"{PREFIX}/lib/{soname}" for soname in sorted(interpreter.libraries)]
    return {
        "version": version,
        "file": "archive" if archive else executable,
        "sha256": hashlib.sha256(content).hexdigest(),
        "libraries": {
            path: hashlib.sha256(tree.entries[path].read()).hexdigest()
            for path in copies
            if path in tree.entries
        },
    }


def forget_build_folders(tree: Tree) -> None:
    """Rewrites what the standard library knows of the folders it was built in and for."""
    data = {path: entry.read().decode() for path, entry in tree.files() if BUILD_DATA.search(path)}
    for path, text in data.items():
        for folder, place in _build_folders("".join(data.values())).items():
            # A folder's name, not the end of another's; after -I, -L too.
            name = rf"(?:(?<!\w)|(?<=-[IL])){re.escape(folder)}(?![\w.-])"
            text = re.sub(name, place, text)
        tree.file(path, text)


def _build_folders(data: str) -> Dict[str, str]:
    """The folders that `data` says an interpreter was built in, and what to write instead."""
    folders = {}
    # Official images of Python have the same.
    for variable, place in (
        ("abs_builddir", "/usr/src/python"),
        ("abs_srcdir", "/usr/src/python"),
        ("prefix", f"/{PREFIX}"),
    ):
        match = re.search(rf"'{variable}': '([^']+)'", data)
        # A distribution's own interpreter names folders that every system has.
        if match and match[1] != "/usr":
            folders[match[1]] = place
    return {**folders, RELEASE_TOOLS: "/usr/src/tools"}


def check_version(python: Sequence[str], expected: str) -> None:
    """Raises SystemExit if the command `python` is not CPython of the version `expected`, or a minor."""
    code = "import platform; print(platform.python_implementation(), platform.python_version())"
    argv = [*python, "-IS", "-c", code]
    try:
        found = subprocess.run(argv, check=True, capture_output=True, text=True, env={}).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"The interpreter to compile with does not start: {error}") from None
    if not f"{found.strip()}.".startswith(f"CPython {expected}."):
        raise SystemExit(f"The interpreter is {found.strip()}; CPython {expected} was asked for")
