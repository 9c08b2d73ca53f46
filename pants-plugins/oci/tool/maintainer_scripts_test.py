from __future__ import annotations

import pytest

from oci.tool.deb import Deb
from oci.tool.layer import Entry, Tree
from oci.tool.maintainer_scripts import BUNDLE, apply


def package(name: str, *scripts: str) -> Deb:
    return Deb(name, {"control": b"", **{script: b"#!/bin/sh\n" for script in scripts}}, b"", "")


def applied(name: str, files: dict[str, str]) -> dict[str, Entry]:
    tree = Tree()
    for path, content in files.items():
        tree.file(path, content)
    apply([package(name, "postinst")], tree)
    return tree.entries


@pytest.mark.parametrize("script", ["preinst", "postinst"])
def test_a_script_that_nobody_considered_is_refused(script: str) -> None:
    with pytest.raises(ValueError, match=rf"^nginx has maintainer scripts \({script}\).*DONE_HERE"):
        apply([package("tzdata", "postinst"), package("nginx", script)], Tree())


@pytest.mark.parametrize(
    "deb", [package("libgomp1"), package("nginx", "postrm"), package("tzdata")]
)
def test_a_package_without_scripts_needs_nothing(deb: Deb) -> None:
    tree = Tree()
    apply([deb], tree)
    assert not tree.entries


def test_ca_bundle() -> None:
    folder = "usr/share/ca-certificates/mozilla"
    entries = applied(
        "ca-certificates",
        {f"{folder}/Z.crt": "Z\n", f"{folder}/A.crt": "A", "usr/share/other.crt": "other"},
    )
    assert entries[BUNDLE] == Entry(0o644, b"A\nZ\n")
    assert entries["usr/lib/ssl/cert.pem"].target == f"/{BUNDLE}"
    assert entries["etc/ssl/cert.pem"].target == f"/{BUNDLE}"


def test_users() -> None:
    entries = applied("base-files", {})
    users = [line.split(":") for line in entries["etc/passwd"].read().decode().splitlines()]
    assert [(user[0], user[2], user[5]) for user in users] == [
        ("root", "0", "/root"),
        ("nobody", "65534", "/"),
    ]
    groups = [line.split(":") for line in entries["etc/group"].read().decode().splitlines()]
    assert {user[3] for user in users} == {group[2] for group in groups}
    assert entries["root"] == Entry(0o700)


def test_bash_is_the_shell() -> None:
    assert applied("bash", {})["usr/bin/sh"].target == "bash"


def test_time_zone() -> None:
    entries = applied("tzdata", {})
    assert entries["etc/localtime"].target == "/usr/share/zoneinfo/Etc/UTC"
    assert entries["etc/timezone"].read() == b"Etc/UTC\n"


def test_name_services() -> None:
    entries = applied("libc-bin", {"usr/share/libc-bin/nsswitch.conf": "hosts: files dns\n"})
    assert entries["etc/nsswitch.conf"].read() == b"hosts: files dns\n"
