from __future__ import annotations

from pathlib import Path

import pytest

from oci.testutil.debs import make_deb
from oci.tool.deb import Deb, read_deb
from oci.tool.layer import Tree
from oci.tool.packages import distribution, package_facts

DEP5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"


def read(path: Path, **control: str) -> Deb:
    path.write_bytes(make_deb(path.name, {}, control))
    return read_deb(path)


def tree_of(copyright: str, package: str = "tiny") -> Tree:
    tree = Tree()
    tree.file(f"usr/share/doc/{package}/copyright", copyright)
    return tree


@pytest.mark.parametrize(
    "copyright, licences, refers_to",
    [
        (
            f"{DEP5}\nLicense: GPL-2+ or MIT\n text\n\nLicense: zlib \n",
            ["GPL-2+ or MIT", "zlib"],
            [],
        ),
        (f"{DEP5}\nLicense:\n text\nSee /usr/share/common-licenses/GPL-2\n", [], []),
        ("`/usr/share/common-licenses/LGPL-2.1', common-licenses/GPL-2.\n", [], ["LGPL-2.1"]),
        ("See /usr/share/common-licenses/GPL-3.\n", [], ["GPL-3"]),
        ("License: do as you like\n", [], []),
    ],
    ids=["dep5", "dep5-without-names", "reference", "end-of-sentence", "prose"],
)
def test_licences(
    tmp_path: Path, copyright: str, licences: list[str], refers_to: list[str]
) -> None:
    facts = package_facts(read(tmp_path / "tiny"), tree_of(copyright))
    assert (facts["licences"], facts["refers_to"]) == (licences, refers_to)


@pytest.mark.parametrize("target", ["tiny-base", "/usr/share/doc/tiny-base"])
def test_documentation_may_be_anothers(tmp_path: Path, target: str) -> None:
    tree = tree_of(f"{DEP5}\nLicense: ISC\n", "tiny-base")
    tree.link("usr/share/doc/tiny", target)
    assert package_facts(read(tmp_path / "tiny"), tree)["licences"] == ["ISC"]


def test_a_copyright_may_be_a_link(tmp_path: Path) -> None:
    tree = tree_of(f"{DEP5}\nLicense: ISC\n", "tiny-base")
    tree.link("usr/share/doc/tiny/copyright", "../tiny-base/copyright")
    assert package_facts(read(tmp_path / "tiny"), tree)["licences"] == ["ISC"]


@pytest.mark.parametrize(
    "line, source",
    [
        ("", {"name": "tiny", "version": "1-2+b1"}),
        ("Source: big\n", {"name": "big", "version": "1-2+b1"}),
        ("Source: big (1-2)\n", {"name": "big", "version": "1-2"}),
    ],
    ids=["its-own", "another-name", "another-version"],
)
def test_sources(tmp_path: Path, line: str, source: dict[str, str]) -> None:
    control = f"Package: tiny\n{line}Version: 1-2+b1\nArchitecture: amd64\n"
    deb = read(tmp_path / "tiny", control=control)
    facts = package_facts(deb, Tree())
    assert facts == {
        **{"name": "tiny", "version": "1-2+b1", "architecture": "amd64", "source": source},
        **{"sha256": deb.sha256, "licences": [], "refers_to": []},
    }


def test_the_layer_with_os_release_tells_the_distribution() -> None:
    tree = Tree()
    assert distribution(tree) == {}
    tree.file("usr/lib/os-release", 'ID=debian\nVERSION_ID="12"\n')
    assert distribution(tree) == {"distribution": {"ID": "debian", "VERSION_ID": "12"}}
