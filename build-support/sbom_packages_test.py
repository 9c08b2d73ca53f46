"""How OSV knows the packages that SBOMs name."""

from __future__ import annotations

import pytest

from sbom_packages import Package, packaged

SOURCE = [{"name": "aquasecurity:trivy:SrcName", "value": "bzip2"}]


# fmt: off
@pytest.mark.parametrize(("purl", "properties", "package"), [
    ("pkg:pypi/scikit-learn@1.6.1", [], Package("PyPI", "scikit-learn", "1.6.1")),
    ("pkg:pypi/Typing_Extensions@4.6.3", [], Package("PyPI", "typing-extensions", "4.6.3")),
    ("pkg:pypi/torch@2.13.0%2Bcpu", [], Package("PyPI", "torch", "2.13.0+cpu")),
    # The source has the package's name, or another one, or another version as well.
    ("pkg:deb/debian/coreutils@9.1-1?distro=debian-12", [], Package("Debian:12", "coreutils", "9.1-1")),
    ("pkg:deb/debian/gcc-12-base@12.2.0-14%2Bdeb12u1?distro=debian-12&upstream=gcc-12", [],
     Package("Debian:12", "gcc-12", "12.2.0-14+deb12u1")),
    ("pkg:deb/debian/libbz2-1.0@1.0.8-5%2Bb1?distro=debian-12&upstream=bzip2%401.0.8-5", [],
     Package("Debian:12", "bzip2", "1.0.8-5")),
    ("pkg:deb/debian/libbz2-1.0@1.0.8-5+b1?distro=debian-12&upstream=bzip2@1.0.8-5", [],
     Package("Debian:12", "bzip2", "1.0.8-5")),
    ("pkg:deb/debian/libdevmapper1.02.1@2:1.02.185-2?distro=debian-12&upstream=lvm2%402.03.16-2", [],
     Package("Debian:12", "lvm2", "2.03.16-2")),
    # A rebuild
    ("pkg:deb/debian/bash@5.2.15-2%2Bb13?distro=debian-12", [], Package("Debian:12", "bash", "5.2.15-2")),
    # Trivy's way
    ("pkg:deb/debian/libbz2-1.0@1.0.8-5%2Bb1?distro=debian-12.15", SOURCE, Package("Debian:12", "bzip2", "1.0.8-5")),
    ("pkg:deb/debian/bash@5.2-2?distro=debian-13.1&epoch=1", [], Package("Debian:13", "bash", "1:5.2-2")),
    # What is not known
    ("pkg:deb/ubuntu/bash@5.2-2?distro=ubuntu-24.04", [], None),
    ("pkg:deb/debian/bash@5.2-2?distro=sid", [], None),
    ("pkg:deb/debian/bash@5.2-2", [], None),
    ("pkg:pypi/requests", [], None),
    ("pkg:generic/cpython@3.12.13", [], None),
])
# fmt: on
def test_a_package(purl, properties, package):
    assert packaged({"purl": purl, "properties": properties}) == package
