"""What `make vulnerabilities` prints of SBOMs and a folder of advisories, and how it exits."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import tomllib

from vulnerabilities import ACCEPTED, main

# As Syft's SBOM of images:py311 has them: an epoch, a source of another name, and of another version.
ZLIB = "pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1?arch=amd64&distro=debian-12&upstream=zlib"
LIBC = "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12&upstream=glibc"
LIBC_BIN = "pkg:deb/debian/libc-bin@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12&upstream=glibc"
BZIP2 = (
    "pkg:deb/debian/libbz2-1.0@1.0.8-5%2Bb1?arch=amd64&distro=debian-12&upstream=bzip2%401.0.8-5"
)
REQUESTS = "pkg:pypi/requests@2.32.3"
JINJA2 = "pkg:pypi/jinja2@3.1.6"
CPYTHON = "pkg:generic/cpython@3.12.13"

PROXY = {
    "id": "GHSA-9hjg-9r4m-mvj7",
    "aliases": ["CVE-2024-47081"],
    "summary": "Requests vulnerable to .netrc credentials leak via malicious URLs",
    "severity": [
        {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:H/I:N/A:N"},
    ],
}
MINIZIP = {
    "id": "DEBIAN-CVE-2023-45853",
    "upstream": ["CVE-2023-45853"],
    "severity": [
        {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"},
    ],
}
STACK = {"id": "DEBIAN-CVE-2019-1010022", "upstream": ["CVE-2019-1010022"]}
UNIMPORTANT = {"urgency": "unimportant"}


def about(
    advisory: dict[str, Any], ecosystem: str, name: str, fixed: str | None = None, **said: Any
) -> dict[str, Any]:
    """An advisory that a package is vulnerable until it was fixed; null is what the schema allows."""
    events = [{"introduced": "0"}, *([{"fixed": fixed}] if fixed else [])]
    ranges = [{"type": "ECOSYSTEM", "events": events}]
    package = {"ecosystem": ecosystem, "name": name}
    affected = [{"package": package, "ranges": ranges, "versions": None, **said}]
    return {"modified": "2020-01-02T03:04:05Z", **advisory, "affected": affected}


KNOWN = {
    "PyPI": [about(PROXY, "PyPI", "Requests", "2.32.4")],
    "Debian:12": [
        about(MINIZIP, "Debian:12", "zlib"),
        about(STACK, "Debian:12", "glibc", ecosystem_specific=UNIMPORTANT),
        # Of this release of Debian nothing else counts.
        about({"id": "DSA-0-1"}, "Debian:13", "bzip2"),
        {"id": "DSA-0-2", "modified": "2020-01-03T00:00:00Z", "affected": None},
    ],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def database(folder: Path, known: dict[str, list[dict[str, Any]]]) -> str:
    for ecosystem, advisories in known.items():
        (folder / ecosystem).mkdir(parents=True)
        with zipfile.ZipFile(folder / ecosystem / "all.zip", "w") as export:
            for advisory in advisories:
                export.writestr(f"{advisory['id']}.json", json.dumps(advisory))
    return str(folder)


def sbom(file: Path, *purls: str, **more: Any) -> str:
    parts = [{"type": "library", "name": "any", "purl": purl, **more} for purl in purls]
    system = {"type": "operating-system", "name": "debian", "version": "12"}
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [system, *parts]}
    file.write_text(json.dumps(document))
    return str(file)


def test_what_is_known_is_told(here, capsys):
    """By default of the images in dist/images, and the worst first."""
    amd64, arm64 = (
        here / f"dist/images/py311/linux-{each}.cdx.json" for each in ("amd64", "arm64")
    )
    sbom(amd64, ZLIB, LIBC, LIBC_BIN, BZIP2, REQUESTS, JINJA2, CPYTHON)
    sbom(arm64, ZLIB.replace("amd64", "arm64"), REQUESTS)
    assert main(["--database", database(here / "db", KNOWN)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(", the newest of ")[0] for line in lines[:2]] == [
        "Debian:12: 4 advisories",
        "PyPI: 1 advisories",
    ]
    assert "the newest of 2020-01-03," in lines[0]
    assert "days ago: `make vulnerability_db` renews" in lines[0]
    assert [line.split() for line in lines[2:-1]] == [
        [],
        ["package", "version", "severity", "fixed", "in", "vulnerability", "where"],
        # fmt: off
        ["zlib", "1:1.2.13.dfsg-1", "critical", "-", "CVE-2023-45853", "DEBIAN-CVE-2023-45853", "all"],
        ["requests", "2.32.3", "medium", "2.32.4", "CVE-2024-47081", "GHSA-9hjg-9r4m-mvj7", "all"],
        ["glibc", "2.36-9+deb12u14", "unimportant", "-", "CVE-2019-1010022", "DEBIAN-CVE-2019-1010022", "py311/linux-amd64"],
        # fmt: on
        [],
        f"not looked up, in none of these databases: {CPYTHON}".split(),
    ]
    assert lines[-1] == (
        "3 vulnerabilities known (1 critical, 1 medium, 1 unimportant) against 3 of 5 packages"
    )


@pytest.mark.parametrize(
    ("least", "purl", "code"),
    [
        ("medium", REQUESTS, 1),
        ("high", REQUESTS, 0),
        ("critical", ZLIB, 1),
        ("low", LIBC, 0),
        ("unimportant", LIBC, 1),
    ],
)
def test_what_is_not_so_bad_need_not_fail(here, least, purl, code):
    argv = [sbom(here / "sbom.json", purl), "--database", database(here / "db", KNOWN)]
    assert main([*argv, "--fail-on", least]) == code
    assert main(argv) == 1


def test_what_nobody_rated_may_be_bad(here):
    unrated = about({"id": "PYSEC-0000-1"}, "PyPI", "jinja2")
    folder = database(here / "db", {"PyPI": [unrated]})
    argv = [sbom(here / "sbom.json", JINJA2), "--database", folder, "--fail-on", "critical"]
    assert main(argv) == 1


def test_nothing_known(here, capsys):
    argv = [sbom(here / "sbom.json", JINJA2, BZIP2), "--database", database(here / "db", KNOWN)]
    assert main(argv) == 0
    assert capsys.readouterr().out.endswith("\nnothing known against 2 packages\n")


def test_as_json(here, capsys):
    file = sbom(here / "sbom.json", LIBC, LIBC_BIN, REQUESTS, CPYTHON)
    assert main([file, "--database", database(here / "db", KNOWN), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["databases"]["PyPI"] == {"advisories": 1, "newest": "2020-01-02"}
    assert document["not_looked_up"] == [CPYTHON]
    requests, glibc = document["vulnerabilities"]
    assert requests == {
        "ecosystem": "PyPI",
        "name": "requests",
        "version": "2.32.3",
        "names": ["CVE-2024-47081", "GHSA-9hjg-9r4m-mvj7"],
        "severity": "medium",
        "fixed": "2.32.4",
        "summary": PROXY["summary"],
        "advisories": ["GHSA-9hjg-9r4m-mvj7"],
        "purls": [REQUESTS],
        "sboms": [file],
        "accepted": "",
    }
    assert glibc["purls"] == [LIBC_BIN, LIBC]


def test_sources_and_epochs_as_trivy_tells_of_them(here, capsys):
    name = "aquasecurity:trivy:SrcName"
    zlib = "pkg:deb/debian/zlib1g@1.2.13.dfsg-1?arch=amd64&distro=debian-12.15&epoch=1"
    file = sbom(here / "sbom.json", zlib, properties=[{"name": name, "value": "zlib"}])
    fixed = about(MINIZIP, "Debian:12", "zlib", "1:1.2.13.dfsg-2")
    assert main([file, "--database", database(here / "db", {"Debian:12": [fixed]})]) == 1
    assert (
        "zlib     1:1.2.13.dfsg-1  critical  1:1.2.13.dfsg-2  CVE-2023" in capsys.readouterr().out
    )


def test_what_was_accepted_is_told_apart(here, capsys):
    accepted = here / "accepted.toml"
    accepted.write_text(
        "accepted = [\n"
        '  {package = "zlib", id = "CVE-2023-45853", reason = "MiniZip is not built"},\n'
        '  {package = "jinja2", id = "CVE-2024-22195", reason = "no template is a user\'s"},\n'
        "]\n"
    )
    argv = [sbom(here / "sbom.json", ZLIB), "--database", database(here / "db", KNOWN)]
    assert main([*argv, "--accepted", str(accepted)]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "accepted: zlib CVE-2023-45853: MiniZip is not built",
        "not needed for these SBOMs: accepted.toml accepts jinja2 CVE-2024-22195",
        "nothing else known against 1 packages",
    ]


@pytest.mark.parametrize("content", ["nonsense", 'accepted = [{id = "CVE-2023-45853"}]', ""])
def test_a_list_that_is_none_is_said(here, capsys, content):
    (here / "accepted.toml").write_text(content)
    argv = [sbom(here / "sbom.json", ZLIB), "--database", database(here / "db", KNOWN)]
    assert "accepted.toml: " in refusal(capsys, *argv, "--accepted", "accepted.toml")


def test_the_list_of_what_is_accepted_can_be_read():
    for entry in tomllib.loads(ACCEPTED.read_text())["accepted"]:
        assert entry.keys() == {"package", "id", "reason"}


def refusal(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    assert main([*map(str, argv)]) == 2
    out, err = capsys.readouterr()
    assert not out
    return err


def test_without_a_database_nothing_is_said_of_the_packages(here, capsys):
    file = sbom(here / "sbom.json", JINJA2, BZIP2)
    folder = database(here / "db", {"PyPI": KNOWN["PyPI"]})
    said = refusal(capsys, file, "--database", folder)
    assert f"{folder}/Debian:12/all.zip is missing\n" in said
    assert "PyPI" not in said
    assert "`make vulnerability_db` fetches it" in said


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\5\6" + bytes(18)])
def test_a_damaged_or_empty_database_is_none(here, capsys, content):
    file = sbom(here / "sbom.json", JINJA2)
    export = here / "db/PyPI/all.zip"
    export.parent.mkdir(parents=True)
    export.write_bytes(content)
    assert "PyPI/all.zip is damaged: " in refusal(capsys, file, "--database", here / "db")


def test_versions_that_cannot_be_compared_are_not_passed_over(here, capsys):
    """What is known of the others is told all the same."""
    file = sbom(here / "sbom.json", "pkg:pypi/requests@nonsense", ZLIB)
    assert main([file, "--database", database(here / "db", KNOWN)]) == 2
    out, err = capsys.readouterr()
    assert "CVE-2023-45853" in out and out.endswith("against 1 of 1 packages\n")
    assert "requests nonsense cannot be compared: GHSA-9hjg-9r4m-mvj7" in err


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("nonsense", "is no CycloneDX SBOM in JSON"),
        ('{"spdxVersion": "SPDX-2.3"}', "is no CycloneDX SBOM in JSON: 'bomFormat'"),
        ('{"bomFormat": "CycloneDX"}', "names no package"),
        ('{"bomFormat": "CycloneDX", "components": [{"purl": "x"}]}', "is no CycloneDX SBOM"),
        (
            '{"bomFormat": "CycloneDX", "components": [{"purl": "pkg:npm/left-pad@1.3.0"}]}',
            "no package of PyPI or Debian",
        ),
        (None, "No such file"),
    ],
)
def test_what_is_no_sbom_is_said(here, capsys, content, why):
    if content is not None:
        (here / "sbom.json").write_text(content)
    assert why in refusal(capsys, here / "sbom.json", "--database", database(here / "db", KNOWN))


def test_without_images_there_is_a_hint(here, capsys):
    assert "`./pants package images:py311` writes some" in refusal(capsys)
