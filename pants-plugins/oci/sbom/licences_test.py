from __future__ import annotations

from typing import Any

import pytest

from oci.sbom.licences import Licence, of_deb, of_names, of_wheel


@pytest.mark.parametrize(
    "names, expression",
    [
        ([], ""),
        (["Expat"], "MIT"),
        (["GPL-2+"], "GPL-2.0-or-later"),
        (["LGPL-2.1"], "LGPL-2.1-only"),
        (["GFDL-1.3+"], "GFDL-1.3-or-later"),
        (["GPL-3+", "BSD-3-clause", "GPL-3+"], "BSD-3-Clause AND GPL-3.0-or-later"),
        (["GPL-1+ or Artistic"], "Artistic-1.0-Perl OR GPL-1.0-or-later"),
        (["MPL-1.1 or GPL-2+ or LGPL-2.1+", "ISC"],)
        + ("(GPL-2.0-or-later OR LGPL-2.1-or-later OR MPL-1.1) AND ISC",),
        (["LGPL-2.1+ and Expat"], "LGPL-2.1-or-later AND MIT"),
    ],
)
def test_known_names(names: list[str], expression: str) -> None:
    assert of_names(names) == Licence(expression)


@pytest.mark.parametrize(
    "name, ref",
    [
        ("public-domain", "LicenseRef-public-domain"),
        # Which version is not said.
        ("GPL", "LicenseRef-GPL"),
        ("GPL-2+ with Autoconf exception", "LicenseRef-GPL-2-with-Autoconf-exception"),
        ("Expat or another's", "LicenseRef-Expat-or-another-s"),
        # Which of them binds stronger is not said.
        ("Expat and ISC or zlib", "LicenseRef-Expat-and-ISC-or-zlib"),
    ],
)
def test_names_that_spdx_does_not_have_are_kept(name: str, ref: str) -> None:
    assert of_names([name]) == Licence(ref, {ref: name})
    assert of_names([name, "ISC"]) == Licence(" AND ".join(sorted(("ISC", ref))), {ref: name})


def said(expression: str = "", text: str = "", *classifiers: str) -> dict[str, Any]:
    named = [f"License :: {name}" for name in classifiers]
    return {"expression": expression, "text": text, "classifiers": named}


@pytest.mark.parametrize(
    "facts, expression",
    [
        (said("MIT-CMU", "HPND", "OSI Approved :: MIT License"), "MIT-CMU"),
        (said("", "Apache License, Version 2.0"), "Apache-2.0"),
        (said("", "3-Clause BSD License", "OSI Approved :: BSD License"), "BSD-3-Clause"),
        (said("", "MPL-2.0 AND MIT"), "MIT AND MPL-2.0"),
        (said("", "Copyright (c) 2020 Me", "OSI Approved :: MIT License"), "MIT"),
        (said("", "=" * 20, "OSI Approved :: MIT License"), "MIT"),
        (said("", "words " * 20, "OSI Approved :: ISC License (ISCL)"), "ISC"),
        (said("", "", "OSI Approved"), ""),
        (said("", "", "OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)"),)
        + ("LGPL-3.0-only",),
        (said("", "", "OSI Approved :: GNU General Public License v2 or later (GPLv2+)"),)
        + ("GPL-2.0-or-later",),
        (said("", "BSD"), "LicenseRef-BSD"),
        (
            said(
                "", "Dual", "OSI Approved :: Apache Software License", "OSI Approved :: BSD License"
            ),
        )
        + ("Apache-2.0 AND LicenseRef-BSD-License",),
        (said(), ""),
    ],
)
def test_wheels(facts: dict[str, Any], expression: str) -> None:
    assert of_wheel(facts).expression == expression


def test_what_only_prose_tells_is_not_guessed() -> None:
    deb = {"name": "libstdc++6", "licences": [], "refers_to": ["GPL-3", "LGPL"]}
    name = "see the copyright file of libstdc++6, which refers to GPL-3, LGPL"
    assert of_deb(deb).names == {"LicenseRef-Debian-libstdc-6": name}
    assert of_deb({**deb, "licences": ["Expat"]}) == Licence("MIT")
