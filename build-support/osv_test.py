"""Which versions an advisory is about, by the schema's rules, and what several of them say together.

The advisories are real ones, shortened.
"""

from __future__ import annotations

from typing import Any

import pytest

from osv import Ecosystem, Hit, hits, is_affected, parser, severity


def entry(*events: dict[str, str], versions: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": [*events]}] if events else []
    return {"ranges": ranges, "versions": [*versions], **more}


def since(version: str, **until: str) -> tuple[dict[str, str], ...]:
    return {"introduced": version}, *({kind: at} for kind, at in until.items())


# fmt: off
@pytest.mark.parametrize(("said", "version", "is_it"), [
    # CVE-2023-32681 of requests
    (entry(*since("2.3.0", fixed="2.31.0")), "2.3.0", True),
    (entry(*since("2.3.0", fixed="2.31.0")), "2.30", True),
    (entry(*since("2.3.0", fixed="2.31.0")), "2.31.0", False),
    (entry(*since("2.3.0", fixed="2.31.0")), "2.2.1", False),
    # Releases before a release are before it; "0" is before them all.
    (entry(*since("2.3.0", fixed="2.31.0")), "2.31.0rc1", True),
    (entry(*since("0", fixed="2.31.0")), "0.0.dev1", True),
    # CVE-2023-43804 of urllib3, in one range and out of order
    (entry(*since("2.0.0", fixed="2.0.6"), *since("0", fixed="1.26.17")), "1.26.16", True),
    (entry(*since("2.0.0", fixed="2.0.6"), *since("0", fixed="1.26.17")), "1.26.17", False),
    (entry(*since("2.0.0", fixed="2.0.6"), *since("0", fixed="1.26.17")), "2.0.5", True),
    (entry(*since("2.0.0", fixed="2.0.6"), *since("0", fixed="1.26.17")), "2.0.6", False),
    # CVE-2022-42969 of py
    (entry(*since("0", last_affected="1.11.0")), "1.11.0", True),
    (entry(*since("0", last_affected="1.11.0")), "1.11.0.post1", False),
    (entry(*since("0")), "99", True),
    (entry(*since("0"), {"limit": "2.0"}), "1.9", True),
    (entry(*since("0"), {"limit": "2.0"}), "2.0", False),
    (entry(*since("0"), {"limit": "2.0"}, {"limit": "*"}), "2.0", True),
    # Listed, however it is written, beside what is no version any more
    (entry(versions=("2004d", "1.0")), "1.0.0", True),
    (entry(versions=("2004d", "1.0")), "1.1", False),
    (entry(*since("3"), versions=("1.0",)), "1.0", True),
    ({"ranges": [{"type": "GIT", "events": [*since("0")]}]}, "1.0", False),
    ({}, "1.0", False),
])
def test_a_python_package(said, version, is_it):
    assert is_affected(said, version, parser("PyPI")) is is_it


@pytest.mark.parametrize(("said", "version", "is_it"), [
    # CVE-2023-5363 of openssl
    (entry(*since("0", fixed="3.0.11-1~deb12u2")), "3.0.11-1~deb12u1", True),
    (entry(*since("0", fixed="3.0.11-1~deb12u2")), "3.0.11-1~deb12u2", False),
    (entry(*since("0", fixed="3.0.11-1~deb12u2")), "3.0.11-1", False),
    # CVE-2024-2961 of glibc
    (entry(*since("0", fixed="2.36-9+deb12u6")), "2.36-9", True),
    (entry(*since("0", fixed="2.36-9+deb12u6")), "2.36-9+deb12u10", False),
    # An epoch is more than any version without.
    (entry(*since("0", fixed="1:1.2.13.dfsg-2")), "1:1.2.13.dfsg-1", True),
    (entry(*since("0", fixed="1:1.2.13.dfsg-2")), "9.9-1", True),
    (entry(*since("0", fixed="9.9-1")), "1:1.2.13.dfsg-1", False),
    (entry(*since("0", fixed="0")), "1.0-1", False),
])
def test_a_debian_package(said, version, is_it):
    assert is_affected(said, version, parser("Debian:12")) is is_it


MEDIUM = {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:H/I:N/A:N"}
HARMLESS = {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N"}
CRITICAL = {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}
HIGH = {"type": "CVSS_V4", "score": "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:N/VA:N/SC:N/SI:N/SA:N"}


@pytest.mark.parametrize(("advisory", "said", "word"), [
    ({"severity": [MEDIUM]}, {}, "medium"),
    ({"severity": [MEDIUM, HIGH]}, {}, "high"),
    ({}, {"severity": [CRITICAL]}, "critical"),
    ({"severity": [CRITICAL]}, {"ecosystem_specific": {"urgency": "unimportant"}}, "unimportant"),
    ({"severity": [CRITICAL]}, {"ecosystem_specific": {"urgency": "low"}}, "critical"),
    ({}, {"ecosystem_specific": {"urgency": "low"}}, "low"),
    ({}, {"ecosystem_specific": {"urgency": "not yet assigned"}}, "unknown"),
    ({"database_specific": {"severity": "MODERATE"}}, {}, "medium"),
    ({"severity": [HARMLESS]}, {}, "unimportant"),
    ({"severity": [{"type": "Ubuntu", "score": "low"}]}, {}, "unknown"),
    ({"severity": [{"type": "CVSS_V3", "score": "nonsense"}]}, {}, "unknown"),
])
def test_how_bad_it_is(advisory, said, word):
    assert severity(advisory, said) == word
# fmt: on


def told(*advisories: dict[str, Any], ecosystem: str, version: str) -> list[Hit]:
    """What advisories say of the version of a package `it`."""
    for advisory in advisories:
        for each in advisory["affected"]:
            each["package"] = {"ecosystem": ecosystem, "name": "it"}
    known = Ecosystem({"it": [*advisories]}, len(advisories), "2024-01-01")
    return hits(known, ecosystem, "it", version)


def test_advisories_of_one_vulnerability_are_one() -> None:
    """Aliases need not be told by both, and the later fix is the one that all agree on."""
    requests = [
        {"id": "PYSEC-2023-74", "affected": [entry(*since("2.3.0", fixed="2.30.1"))]},
        {"id": "GHSA-j8r2-6x86-q33q", "affected": [entry(*since("2.3.0", fixed="2.31.0"))]},
    ]
    requests[0]["aliases"] = ["CVE-2023-32681", "GHSA-j8r2-6x86-q33q"]
    requests[1] |= {"severity": [MEDIUM], "summary": "Proxy-Authorization leaks"}
    for order in (requests, requests[::-1]):
        (hit,) = told(*order, ecosystem="PyPI", version="2.30.0")
        assert hit.names == ["CVE-2023-32681", "GHSA-j8r2-6x86-q33q", "PYSEC-2023-74"]
        assert (hit.severity, hit.fixed) == ("medium", "2.31.0")
        assert hit.summary == "Proxy-Authorization leaks"


def test_an_advisory_of_two_vulnerabilities_tells_of_those_that_nothing_else_does() -> None:
    def cve(number: str) -> dict[str, Any]:
        name = f"CVE-2024-{number}"
        fixed = entry(*since("0", fixed="2.36-9+deb12u7"))
        return {"id": f"DEBIAN-{name}", "upstream": [name], "affected": [fixed]}

    dsa = {
        "id": "DSA-5678-1",
        "upstream": ["CVE-2024-33599", "CVE-2024-33600"],
        "affected": [entry(*since("0", fixed="2.36-9+deb12u7"))],
    }
    both = told(dsa, cve("33599"), cve("33600"), ecosystem="Debian:12", version="2.36-9+deb12u6")
    assert [hit.names for hit in both] == [
        ["CVE-2024-33599", "DEBIAN-CVE-2024-33599", "DSA-5678-1"],
        ["CVE-2024-33600", "DEBIAN-CVE-2024-33600", "DSA-5678-1"],
    ]
    one = told(dsa, cve("33599"), ecosystem="Debian:12", version="2.36-9+deb12u6")
    assert [hit.names for hit in one] == [
        ["CVE-2024-33599", "DEBIAN-CVE-2024-33599"],
        ["CVE-2024-33599", "CVE-2024-33600", "DSA-5678-1"],
    ]


def test_what_was_withdrawn_is_not_told() -> None:
    advisory = {"id": "PYSEC-2022-42969", "affected": [entry(*since("0"))]}
    assert told(advisory, ecosystem="PyPI", version="1.11.0")
    advisory["withdrawn"] = "2024-11-26T18:35:26Z"
    assert not told(advisory, ecosystem="PyPI", version="1.11.0")


def test_the_fix_is_the_next_one() -> None:
    ranges = [
        {"type": "ECOSYSTEM", "events": [*since("0", fixed="1.26.17")]},
        {"type": "ECOSYSTEM", "events": [*since("2.0.0", fixed="2.0.6")]},
        {"type": "GIT", "events": [*since("0", fixed="644124ecd0b6e417c527191f866daa05a5a2056d")]},
    ]
    advisory = {"id": "CVE-2023-43804", "affected": [{"ranges": ranges}]}
    for version, fixed in (("1.26.16", "1.26.17"), ("2.0.5", "2.0.6")):
        (hit,) = told(advisory, ecosystem="PyPI", version=version)
        assert hit.fixed == fixed


def test_a_version_that_cannot_be_compared_is_said() -> None:
    advisory = {"id": "PYSEC-0000-1", "affected": [entry(*since("0", fixed="2004d"))]}
    with pytest.raises(ValueError, match="PYSEC-0000-1: .*2004d"):
        told(advisory, ecosystem="PyPI", version="1.0")
