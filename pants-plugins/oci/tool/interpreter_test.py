from __future__ import annotations

import io
import os
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import Mapping, Optional, Sequence, Union

import pytest

from oci.testutil.elf import make_elf
from oci.tool.interpreter import (
    Interpreter,
    archived,
    check_version,
    copied,
    forget_build_folders,
    interpreter_tree,
    linked,
)
from oci.tool.layer import Entry, Tree

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
STDLIB = f"usr/local/lib/python{MINOR}"
TRIPLET = "x86_64-linux-gnu"
FILES = {
    f"bin/python{MINOR}": "program",
    "bin/pip": "program",
    f"lib/python{MINOR}/site.py": "import os\n",
    f"lib/python{MINOR}/test/test_os.py": "import os\n",
    f"lib/python{MINOR}/unittest/test/a.py": "import os\n",
    f"lib/python{MINOR}/__pycache__/site.pyc": "old",
    f"lib/python{MINOR}/site-packages/pip/a.py": "a = 1\n",
    "lib/libpython3.so": "library",
    "include/Python.h": "",
    "share/man/python.1": "",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def archive(files: Mapping[str, Union[str, bytes]] = FILES) -> Path:
    path = Path("cpython.tar.gz")
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            content = text.encode() if isinstance(text, str) else text
            info = tarfile.TarInfo(f"python/{name}")
            info.size, info.mode = len(content), 0o775 if name.startswith("bin/") else 0o664
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("python/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, f"python{MINOR}"
        tar.addfile(link)
    return path


def tree_of(interpreter: Optional[Interpreter] = None, below: Sequence[str] = ()) -> Tree:
    lower = Tree()
    for soname in below:
        lower.file(f"usr/lib/{TRIPLET}/{soname}", make_elf(soname))
    found = interpreter or archived(archive(), MINOR, ())
    return interpreter_tree(found, MINOR, [lower], TRIPLET, [sys.executable])


def files(tree: Tree) -> set[str]:
    return {path for path, _ in tree.files()}


def interpreter(**libraries: str) -> Interpreter:
    tree = Tree()
    tree.file(f"usr/local/bin/python{MINOR}", "", 0o755)
    tree.file(f"{STDLIB}/site.py", "")
    found = {f"{name}.so.1": Entry(content=text.encode()) for name, text in libraries.items()}
    return Interpreter(tree, found, {})


def test_an_archive_gives_the_program_and_its_standard_library_alone() -> None:
    found = archived(archive(), MINOR, ["usr/local/lib/python3.*/test"]).tree
    assert files(found) == {f"usr/local/bin/python{MINOR}", f"{STDLIB}/site.py"}
    modes = {path: entry.mode for path, entry in found.files()}
    assert modes == {f"usr/local/bin/python{MINOR}": 0o755, f"{STDLIB}/site.py": 0o644}


def test_of_an_archives_libraries_those_come_along_that_are_needed() -> None:
    program = make_elf(needed=["libc.so.6"])
    libraries = {"lib/libc.so.6": "the C library", "lib/libtk.so.8": "not needed"}
    found = archived(archive({**FILES, **libraries, f"bin/python{MINOR}": program}), MINOR, ())
    assert {name: entry.read() for name, entry in found.libraries.items()} == {
        "libc.so.6": b"the C library"
    }


def test_the_layer_is_compiled_and_has_the_usual_names() -> None:
    tree = tree_of()
    tag = f"cpython-{MINOR.replace('.', '')}"
    assert {path for path in files(tree) if "/test/" not in path} == {
        "etc/ld.so.cache",
        f"usr/local/bin/python{MINOR}",
        f"{STDLIB}/site.py",
        f"{STDLIB}/__pycache__/site.{tag}.pyc",
    }
    assert tree.entries["usr/bin/python3"].target == f"/usr/local/bin/python{MINOR}"
    assert f"{STDLIB}/site-packages" in tree.entries
    assert f"{STDLIB}/dist-packages" not in tree.entries


def test_an_interpreter_of_debian_finds_its_packages_where_the_others_do() -> None:
    found = interpreter()
    found.tree.file(f"{STDLIB}/site.py", 'os.path.join("lib", "dist-packages")\n')
    assert tree_of(found).entries[f"{STDLIB}/dist-packages"].target == "site-packages"


def test_libraries_that_the_layers_below_lack_are_added_and_found() -> None:
    tree = tree_of(interpreter(libssl="ssl", libc="c"), ["libc.so.1"])
    assert {path for path in files(tree) if ".so." in path} == {
        "etc/ld.so.cache",
        "usr/local/lib/libssl.so.1",
    }
    cache = tree.entries["etc/ld.so.cache"].read()
    assert b"\0/usr/local/lib/libssl.so.1\0" in cache
    assert b"\0/lib/%b/libc.so.1\0" % TRIPLET.encode() in cache


def test_a_library_that_is_nowhere_is_named() -> None:
    found = interpreter()
    found.missing["libtk.so.8"] = "lib-dynload/_tkinter.so needs libtk.so.8"
    with pytest.raises(SystemExit, match="lib-dynload/_tkinter.so needs libtk.so.8"):
        tree_of(found)
    tree_of(found, ["libtk.so.8"])


def test_a_truncated_archive() -> None:
    path = archive({**FILES, "lib/large": os.urandom(1 << 16).hex()})
    path.write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(SystemExit, match="cpython.tar.gz is no complete archive"):
        archived(path, MINOR, ())


def test_an_archive_of_another_minor() -> None:
    with pytest.raises(SystemExit, match=rf"holds python{MINOR}; python3.99 was asked for"):
        archived(archive(), "3.99", ())
    with pytest.raises(SystemExit, match="holds no interpreter; python3.99 was asked for"):
        archived(archive({}), "3.99", ())


def test_the_version_is_what_the_interpreter_says() -> None:
    check_version([sys.executable], MINOR)
    check_version([sys.executable], ".".join(map(str, sys.version_info[:3])))
    for wrong in ("3.99", MINOR[:-1], f"{MINOR}.99"):
        with pytest.raises(SystemExit, match=f"CPython {wrong} was asked for"):
            check_version([sys.executable], wrong)
    with pytest.raises(SystemExit, match="does not start"):
        check_version(["/nowhere/python"], MINOR)


@pytest.mark.parametrize(
    "prefix, text, rewritten",
    [
        ("/install", "-I/install/include", "-I/usr/local/include"),
        ("/install", "/usr/bin/install -c", "/usr/bin/install -c"),
        ("/install", "/installed", "/installed"),
        ("/a/3.12.1", "-Wl,-rpath,/a/3.12.1/lib", "-Wl,-rpath,/usr/local/lib"),
        ("/a/3.12.1", "/a/3.12.13/lib", "/a/3.12.13/lib"),
        ("/usr", "/usr/share/zoneinfo", "/usr/share/zoneinfo"),
        ("/a", "/build/Python/lcov", "/usr/src/python/lcov"),
        ("/a", "/tools/clang/bin/clang", "/usr/src/tools/clang/bin/clang"),
    ],
)
def test_build_folders_are_forgotten(prefix: str, text: str, rewritten: str) -> None:
    data = f"build_time_vars = {{'abs_builddir': '/build/Python', 'prefix': '{prefix}', 'x': '%s'}}"
    tree = Tree()
    name = f"{STDLIB}/_sysconfigdata__linux_x86_64-linux-gnu.py"
    tree.file(name, data % text)
    tree.file(f"{STDLIB}/build-details.json", f'"{text}"')
    tree.file(f"{STDLIB}/other.py", f"{text!r}")
    forget_build_folders(tree)
    variables: dict[str, dict[str, str]] = {}
    exec(tree.entries[name].read(), variables)
    assert variables["build_time_vars"]["x"] == rewritten
    assert variables["build_time_vars"]["abs_builddir"] == "/usr/src/python"
    assert tree.entries[f"{STDLIB}/build-details.json"].read().decode() == f'"{rewritten}"'
    assert tree.entries[f"{STDLIB}/other.py"].read().decode() == f"{text!r}"


def own(omit: list[str]) -> Interpreter:
    executable = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    stdlib = Path(sysconfig.get_path("stdlib"))
    return copied(executable, [stdlib, stdlib], MINOR, omit)


def test_this_machines_interpreter_runs_from_its_copy_alone(tmp_path: Path) -> None:
    omit = [f"usr/local/lib/python3.*/{name}" for name in ("test", "lib-dynload/_tkinter.*")]
    found = own([*omit, "usr/local/lib/python3.*/lib-dynload/nis.*"])
    assert not found.missing and "libc.so.6" in found.libraries
    assert not any("site-packages" in path or "__pycache__" in path for path in found.tree.entries)
    # Libraries of this machine's system stay where they are; the rest is what a layer would hold.
    for path, entry in found.tree.files():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(entry.read())
        file.chmod(entry.mode)
    code = "import encodings, math, sys; print(sys.prefix); print(encodings.__file__)"
    program = tmp_path / f"usr/local/bin/python{MINOR}"
    printed = subprocess.run(
        [program, "-IS", "-c", code], check=True, capture_output=True, text=True, env={}
    ).stdout.split()
    assert printed == [f"{tmp_path}/usr/local", f"{tmp_path}/{STDLIB}/encodings/__init__.py"]


def test_what_the_loader_does_not_find_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "oci.tool.interpreter.linked", lambda programs: {programs[0]: {"libgone.so.1": ""}}
    )
    needs = {"libgone.so.1": f"usr/local/bin/python{MINOR} needs libgone.so.1"}
    assert own([]).missing == needs


def test_libraries_are_those_that_the_loader_takes(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    libraries = linked([Path("/bin/cat"), script])
    assert Path(libraries[Path("/bin/cat")]["libc.so.6"]).exists()
    assert libraries[script] == {}
    assert linked([Path("/bin/cat")]) == {Path("/bin/cat"): libraries[Path("/bin/cat")]}
