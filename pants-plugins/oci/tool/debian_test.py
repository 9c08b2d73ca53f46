from __future__ import annotations

import marshal
import sys
from pathlib import Path
from typing import Sequence

import pytest

from oci.testutil.debs import Member, Members, make_deb
from oci.testutil.elf import make_elf
from oci.tool.debian import debian_tree
from oci.tool.layer import Tree

TRIPLET = "x86_64-linux-gnu"
LIBRARIES = f"usr/lib/{TRIPLET}"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def deb(name: str, files: Members, **control: str) -> Path:
    path = Path(f"{name}.deb")
    path.write_bytes(make_deb(name, files, control))
    return path


def tree_of(
    *debs: Path, base: Sequence[Path] = (), omit: Sequence[str] = (), links: Sequence[str] = ()
) -> Tree:
    return debian_tree(debs, base, TRIPLET, omit, links, [sys.executable]).tree


def library(soname: str) -> dict[str, Member]:
    return {f"{LIBRARIES}/{soname}": Member(make_elf(soname))}


def cached(tree: Tree) -> set[str]:
    strings = tree.entries["etc/ld.so.cache"].read().split(b"\0")
    return {string.decode() for string in strings if string.startswith(b"/lib/")}


@pytest.mark.parametrize(
    "omit, left",
    [
        ([], {"usr/bin/a", "usr/share/doc/a/copyright", "usr/share/doc/a/NEWS"}),
        (["usr/share"], {"usr/bin/a"}),
        (
            ["usr/share/doc", "!usr/share/doc/*/copyright"],
            {"usr/bin/a", "usr/share/doc/a/copyright"},
        ),
        (["!usr/share/doc/*/copyright", "usr/share/doc"], {"usr/bin/a"}),
        (["usr/share/doc", "!usr/share", "usr/*/NEWS"], {"usr/bin/a", "usr/share/doc/a/copyright"}),
        (["usr/b*"], {"usr/share/doc/a/copyright", "usr/share/doc/a/NEWS"}),
        (["usr/shar", "bin"], {"usr/bin/a", "usr/share/doc/a/copyright", "usr/share/doc/a/NEWS"}),
    ],
)
def test_omit(omit: list[str], left: set[str]) -> None:
    a = deb("a", {"usr/bin/a": "", "usr/share/doc/a/copyright": "", "usr/share/doc/a/NEWS": ""})
    assert {path for path, _ in tree_of(a, omit=omit).files()} & {
        *("usr/bin/a", "usr/share/doc/a/copyright", "usr/share/doc/a/NEWS"),
    } == left


def test_what_an_omission_takes_back_in_keeps_its_folders() -> None:
    a = deb("a", {"usr/share/doc/a/copyright": "", "usr/share/doc/b/NEWS": ""})
    tree = tree_of(a, omit=["usr/share/doc", "!usr/share/doc/*/copyright"])
    assert {path for path in tree.entries if path.startswith("usr/share/doc")} == {
        *("usr/share/doc", "usr/share/doc/a", "usr/share/doc/a/copyright"),
    }


def test_links_are_added() -> None:
    tree = tree_of(deb("a", {"usr/bin/python3.11": ""}), links=["usr/bin/python3=python3.11"])
    assert tree.entries["usr/bin/python3"].target == "python3.11"


def test_the_lowest_layer_has_the_links_to_usr_and_no_other_has() -> None:
    base = deb("base", {"lib/a": ""})
    links = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}

    def found(tree: Tree) -> dict[str, str | None]:
        return {path: tree.entries[path].target for path in links if path in tree.entries}

    assert found(tree_of(base)) == links
    assert found(tree_of(deb("a", {"lib/b": ""}), base=[base])) == {}


def test_the_loaders_cache_lists_what_is_below_too() -> None:
    base = deb("libc6", library("libc.so.6"))
    a = deb("a", library("liba.so.1"))
    tree = tree_of(a, base=[base])
    assert cached(tree) == {f"/lib/{TRIPLET}/{name}" for name in ("libc.so.6", "liba.so.1")}
    assert f"{LIBRARIES}/libc.so.6" not in tree.entries


@pytest.mark.parametrize("below", [[], ["libc6"]])
def test_the_loaders_cache_lists_nothing_that_was_left_out(below: list[str]) -> None:
    base = [deb(name, {}) for name in below]
    a = deb("a", {**library("liba.so.1"), **library("libtk.so.8")})
    tree = tree_of(a, base=base, omit=[f"{LIBRARIES}/libtk*"])
    assert cached(tree) == {f"/lib/{TRIPLET}/liba.so.1"}


def test_scanners_find_the_packages() -> None:
    tree = tree_of(deb("a", {}, md5sums="0 usr/bin/a\n"), deb("b", {}))
    status = "var/lib/dpkg/status.d"
    found = {path: entry.read() for path, entry in tree.files() if path.startswith(status)}
    assert list(found) == [f"{status}/a", f"{status}/a.md5sums", f"{status}/b"]
    assert found[f"{status}/b"].startswith(b"Package: b\n")


def test_python_files_are_compiled() -> None:
    tree = tree_of(deb("a", {"usr/lib/python3.11/abc.py": "a = 1\n", "usr/bin/a": "a = 1\n"}))
    compiled = [path for path, _ in tree.files() if path.endswith(".pyc")]
    assert [Path(path).parent.as_posix() for path in compiled] == ["usr/lib/python3.11/__pycache__"]
    code = marshal.loads(tree.entries[compiled[0]].read()[16:])
    assert code.co_filename == "/usr/lib/python3.11/abc.py"
    assert not any(path.is_dir() for path in Path().iterdir()), "nothing is left behind"


def test_a_script_in_the_base_is_not_done_again() -> None:
    base = deb("tzdata", {}, postinst="#!/bin/sh\n")
    assert "etc/timezone" in tree_of(base).entries
    assert "etc/timezone" not in tree_of(deb("a", {}), base=[base]).entries
