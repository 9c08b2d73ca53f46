from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import pytest

from oci.testutil.elf import make_elf
from oci.tool.compatibility import IncompatibleImage, check, linkage, wheels
from oci.tool.layer import Tree

AMD64 = "usr/lib/x86_64-linux-gnu"
SITE_PACKAGES = "usr/local/lib/python3.11/dist-packages"
GLIBC = ["GLIBC_2.2.5", "GLIBC_2.9", "GLIBC_2.36", "GLIBC_PRIVATE"]


def tree_of(files: Mapping[str, bytes | str]) -> Tree:
    tree = Tree()
    for path, content in files.items():
        tree.file(path, content)
    return tree


def layer(what: str, files: Mapping[str, bytes | str] = {}, **facts: Any) -> dict[str, Any]:
    return {"what": what, "linkage": linkage(tree_of(files)), **facts}


def os_layer() -> dict[str, Any]:
    return layer("os", {f"{AMD64}/libc.so.6": make_elf("libc.so.6", defines=GLIBC)})


def python(version: str = "3.11") -> dict[str, Any]:
    return layer("python", python={"version": version})


def packages(*tags: str, minor: str = "3.11", **facts: Any) -> dict[str, Any]:
    wheel = {"name": "tiny", "version": "1.0", "tags": tags}
    return layer("packages", for_python=minor, wheels=[wheel], **facts)


def problems(*layers: dict[str, Any], platform: str = "linux/amd64") -> list[str]:
    try:
        check(layers, platform)
    except IncompatibleImage as found:
        first, *listed = str(found).splitlines()
        assert first == f"The layers do not make an image for {platform}:"
        return [line.removeprefix("- ") for line in listed]
    return []


def test_each_fact_is_told_once_with_the_first_file() -> None:
    wants = {"needed": ["libc.so.6"], "requires": {"libc.so.6": ["GLIBC_2.9"]}}
    tree = tree_of(
        {
            f"{SITE_PACKAGES}/b.so": make_elf(**wants),  # type: ignore[arg-type]
            f"{SITE_PACKAGES}/a.so": make_elf(**wants),  # type: ignore[arg-type]
            f"{SITE_PACKAGES}/a.libs/libown-1.so": make_elf("libown.so.1", defines=["OWN_1"]),
            f"{AMD64}/libz.so.1.2": make_elf("libz.so.1", defines=["ZLIB_1"], machine="arm64"),
            f"{SITE_PACKAGES}/a.py": "",
        }
    )
    tree.link(f"{AMD64}/libz.so.8", "libz.so.1.2")
    tree.link(f"{AMD64}/libgone.so", "libgone.so.1")
    assert linkage(tree) == {
        "machines": {
            "arm64": f"{AMD64}/libz.so.1.2",
            "amd64": f"{SITE_PACKAGES}/a.libs/libown-1.so",
        },
        "needed": {"libc.so.6": f"{SITE_PACKAGES}/a.so"},
        "requires": {"libc.so.6": {"GLIBC_2.9": f"{SITE_PACKAGES}/a.so"}},
        "provides": {name: ["ZLIB_1"] for name in ("libz.so.1", "libz.so.1.2", "libz.so.8")},
        "brings": ["a.so", "b.so", "libown-1.so", "libown.so.1"],
    }


def test_files_on_disk_are_read_as_those_in_memory(tmp_path: Path) -> None:
    contents = {"a.so": make_elf("liba.so.1", needed=["libc.so.6"]), "a.py": b"", "a.txt": b"text"}
    tree = Tree()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        tree.file(f"usr/lib/{name}", tmp_path / name)
    in_memory = tree_of({f"usr/lib/{name}": content for name, content in contents.items()})
    assert linkage(tree) == linkage(in_memory)


def test_installed_wheels_are_listed() -> None:
    info = f"{SITE_PACKAGES}/tiny-1.0.dist-info"
    files = {
        f"{info}/METADATA": "Name: Tiny\nVersion: 1.0\nLicense: Its own\n"
        "Classifier: License :: Public Domain\nClassifier: Topic :: No\n\nTag: no\nName: no\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux1_x86_64\nTag: py3-none-any\nBuild: 1\n",
        f"{SITE_PACKAGES}/tiny/WHEEL": "",
        f"{SITE_PACKAGES}/tiny/_vendor/its-1.dist-info/METADATA": "Name: its\nVersion: 1\n",
        f"{SITE_PACKAGES}/tiny/_vendor/its-1.dist-info/WHEEL": "",
    }
    tags = ["cp311-cp311-manylinux1_x86_64", "py3-none-any"]
    licence = {"expression": "", "text": "Its own", "classifiers": ["License :: Public Domain"]}
    assert wheels(tree_of(files)) == [
        {
            **{"name": "Tiny", "version": "1.0", "tags": tags},
            **{"file": {"tags": tags, "build": "1"}, "licence": licence},
        }
    ]


@pytest.mark.parametrize(
    "recorded, tag",
    [
        ("tiny/__init__.py,,\ntiny/lib/libtiny.so,,\n", "py3-none-manylinux2014_x86_64"),
        ("tiny/__init__.py,,\ntiny/_tiny.so,,\n", "cp38-cp38-manylinux2014_x86_64"),
    ],
    ids=["a-library-for-ctypes", "an-extension-module"],
)
def test_only_extension_modules_tie_a_wheel_to_a_minor_version(recorded: str, tag: str) -> None:
    info = f"{SITE_PACKAGES}/tiny-1.0.dist-info"
    files = {
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nTag: cp38-cp38-manylinux2014_x86_64\n",
        f"{info}/RECORD": recorded,
    }
    assert wheels(tree_of(files))[0]["tags"] == [tag]


def test_layers_that_fit() -> None:
    wheel = {
        f"{SITE_PACKAGES}/tiny.so": make_elf(
            needed=["libc.so.6", "libown.so.1"],
            requires={"libc.so.6": ["GLIBC_2.9"], "libown.so.1": ["OWN_1"]},
        ),
        f"{SITE_PACKAGES}/tiny.libs/libown.so.1": make_elf("libown.so.1", defines=["OWN_1"]),
    }
    fitting = packages("cp311-cp311-manylinux_2_36_x86_64")
    own = layer("own", wheel, for_python="3.11")
    assert problems(os_layer(), python(), fitting, own) == []


def test_layers_that_tell_nothing_fit() -> None:
    assert problems({"what": "os"}, {"what": "more"}) == []


@pytest.mark.parametrize(
    "file, says",
    [
        (
            make_elf(machine="arm64"),
            "more: opt/file is for arm64, the image for amd64. Take a build",
        ),
        (
            make_elf(requires={"libc.so.6": ["GLIBC_2.2.5", "GLIBC_2.38"]}),
            "more: opt/file needs GLIBC_2.38 of libc.so.6, which has GLIBC_2.36 at most. Lock",
        ),
        (
            make_elf(requires={"libc.so.6": ["GLIBCXX_3"]}),
            "more: opt/file needs GLIBCXX_3 of libc.so.6, which has no GLIBCXX_*. Lock",
        ),
        (
            make_elf(needed=["libc.so.6", "libtbb.so.12"]),
            "more: opt/file needs libtbb.so.12, which no layer has. Add the package",
        ),
    ],
    ids=["machine", "symbol-version", "unknown-symbol-version", "library"],
)
def test_a_file_that_does_not_fit(file: bytes, says: str) -> None:
    (problem,) = problems(os_layer(), layer("more", {"opt/file": file}))
    assert problem.startswith(says)


def test_a_library_of_no_versions_serves_all() -> None:
    plain = {"usr/local/lib/libplain.so.1": make_elf("libplain.so.1")}
    wants = {"opt/file": make_elf(requires={"libplain.so.1": ["PLAIN_1"]})}
    assert problems(layer("plain", plain), layer("wants", wants)) == []


def test_an_optional_library_may_be_missing() -> None:
    wants = {"opt/file": make_elf(needed=["libtbb.so.12", "libother.so.1"])}
    (problem,) = problems(layer("wants", wants, optional_libraries=["libtbb.so.12"]))
    assert "libother.so.1" in problem


@pytest.mark.parametrize(
    "tag, fits",
    [
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("py2-none-any", False),
        ("py39-none-any", True),
        ("py311-none-any", True),
        ("py312-none-any", False),
        ("py3-abi3-any", False),
        ("cp311-cp311-linux_x86_64", True),
        ("cp311-none-any", True),
        ("cp310-none-any", False),
        ("cp39-abi3-any", True),
        ("cp311-abi3-any", True),
        ("cp312-abi3-any", False),
        ("cp310-cp310-any", False),
        ("cp311-cp310-any", False),
        ("cp311-cp311t-any", False),
        ("pp311-pypy311_pp73-any", False),
        ("py3-none-linux_aarch64", False),
        ("py3-none-manylinux1_x86_64", True),
        ("py3-none-manylinux2010_x86_64.manylinux_2_99_x86_64", True),
        ("py3-none-manylinux2014_x86_64", True),
        ("py3-none-manylinux2014_aarch64", False),
        ("py3-none-manylinux_2_36_x86_64", True),
        ("py3-none-manylinux_2_37_x86_64", False),
        ("py3-none-manylinux_3_0_x86_64", False),
        ("py3-none-musllinux_1_1_x86_64", False),
        ("py3-none-win_amd64", False),
        ("odd", False),
    ],
)
def test_tags(tag: str, fits: bool) -> None:
    found = problems(os_layer(), python(), packages(tag))
    expected = (
        f"packages: the wheel of tiny 1.0 is for {tag}, the image has Python 3.11, amd64 and glibc "
        "2.36. Lock a version that has a wheel for these"
    )
    assert found == ([] if fits else [expected])


def test_one_of_a_wheels_tags_suffices_and_none_tells_nothing() -> None:
    tags = ("cp311-cp311-win_amd64", "cp311-cp311-linux_aarch64")
    libc = {"usr/lib/aarch64-linux-gnu/libc.so.6": make_elf("libc.so.6", machine="arm64")}
    image = (layer("os", libc), python())
    for fitting in (packages(*tags), packages()):
        assert problems(*image, fitting, platform="linux/arm64") == []


@pytest.mark.parametrize(
    "layers, says",
    [
        ([packages()], "packages is for Python 3.11, and no layer holds it"),
        ([python("3.12"), packages()], "packages is for Python 3.11, the image has 3.12. Build"),
        (
            [python(), python("3.12")],
            "several layers hold an interpreter: python (3.11), python (3.12). Keep one",
        ),
    ],
    ids=["none", "another", "several"],
)
def test_the_interpreter_is_one_and_the_right_one(layers: list[dict[str, Any]], says: str) -> None:
    (problem,) = problems(os_layer(), *layers)
    assert problem.startswith(says)


def test_all_problems_are_told_at_once() -> None:
    wrong = {"opt/file": make_elf(needed=["liba.so.1", "libb.so.1"], machine="arm64")}
    found = problems(python("3.12"), layer("wrong", wrong), packages("cp311-cp311-any"))
    assert [problem.split(" ")[0] for problem in found] == [
        *("packages", "wrong:", "wrong:", "wrong:", "packages:"),
    ]
