"""SPDX expressions for what Debian's copyright files and wheels' metadata say of licences.

A name that stands for no one licence of SPDX's list becomes a `LicenseRef-`, and keeps its text.
https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Optional

# Longer ones are no names, but texts.
NAME = 80
# Names in small letters, without "license", "the" and all that is neither letter, digit, dot nor plus.
KNOWN = {
    **dict.fromkeys(("mit", "expat", "mit expat", "expat mit"), "MIT"),
    **dict.fromkeys(("apache 2.0", "apache software 2.0", "apache 2", "apache v2.0"), "Apache-2.0"),
    # Its classifier has no version, and PyPI no project of an older one that images could hold.
    **dict.fromkeys(("apache software", "apache version 2.0"), "Apache-2.0"),
    **dict.fromkeys(("bsd 2 clause", "2 clause bsd", "simplified bsd"), "BSD-2-Clause"),
    **dict.fromkeys(("bsd 3 clause", "3 clause bsd", "new bsd", "modified bsd"), "BSD-3-Clause"),
    **dict.fromkeys(("bsd 4 clause", "original bsd"), "BSD-4-Clause"),
    **dict.fromkeys(("isc", "isc iscl"), "ISC"),
    **dict.fromkeys(("mpl 2.0", "mozilla public 2.0 mpl 2.0", "mozilla public 2.0"), "MPL-2.0"),
    "mpl 1.1": "MPL-1.1",
    **dict.fromkeys(("psf 2.0", "psf 2", "psf", "python software foundation"), "PSF-2.0"),
    **dict.fromkeys(("zlib", "zlib libpng"), "Zlib"),
    **dict.fromkeys(("artistic", "artistic 1.0 perl"), "Artistic-1.0-Perl"),
    "artistic 2.0": "Artistic-2.0",
    **dict.fromkeys(("cc0 1.0", "cc0"), "CC0-1.0"),
    **dict.fromkeys(("boost 1.0", "bsl 1.0", "boost software 1.0 bsl 1.0"), "BSL-1.0"),
    **dict.fromkeys(("unlicense unlicense", "unlicense"), "Unlicense"),
    **{"mit cmu": "MIT-CMU", "0bsd": "0BSD", "openssl": "OpenSSL", "x11": "X11", "hpnd": "HPND"},
}
# GPL-2+ of Debian, GPL-2.0-or-later, and "GNU … General Public License v3 (GPLv3)" of classifiers.
GNU = re.compile(r"(?:.*\()?((?:A|L)?GPL|GFDL)[- ]?v?(\d(?:\.\d)?)(?:\.0)?(\+|-only|-or-later)?\)?")
# Not a line to underline, nor whose the text is.
NAMELIKE = re.compile(r"(?!Copyright)[A-Za-z0-9]")


@dataclass(frozen=True)
class Licence:
    """`expression` is "" where nothing is known; `names` has the name of each `LicenseRef-` in it."""

    expression: str = ""
    names: Dict[str, str] = field(default_factory=dict)


def of_names(names: Iterable[str]) -> Licence:
    """All of them apply, to one part or another. One may be several: `GPL-2+ or Artistic`."""
    refs: Dict[str, str] = {}
    terms = sorted({_term(name, refs) for name in names})
    if len(terms) > 1:
        terms = [f"({term})" if " " in term else term for term in terms]
    return Licence(" AND ".join(terms), refs)


def of_deb(deb: Dict[str, Any]) -> Licence:
    if deb["licences"]:
        return of_names(deb["licences"])
    refers = f", which refers to {', '.join(deb['refers_to'])}" if deb["refers_to"] else ""
    return _named(f"Debian-{deb['name']}", f"see the copyright file of {deb['name']}{refers}")


def of_wheel(said: Dict[str, Any]) -> Licence:
    """The expression (PEP 639); else what older fields say, if it is understood."""
    if said["expression"]:
        return Licence(said["expression"])
    text = said["text"]
    if len(text) > NAME or not NAMELIKE.match(text):
        text = ""
    # An expression before there was a field for it.
    if _known(text) or re.search(r" (AND|OR|WITH) ", text):
        return of_names([text])
    named = [name.rpartition(" :: ")[2] for name in said["classifiers"]]
    named = [name for name in named if name != "OSI Approved"]
    return of_names(named or ([text] if text else []))


def _named(ref: str, name: str) -> Licence:
    ref = "LicenseRef-" + re.sub(r"[^A-Za-z0-9.]+", "-", ref).strip("-")
    return Licence(ref, {ref: name})


def _term(name: str, refs: Dict[str, str]) -> str:
    words = [name] if _known(name) else re.split(r",? +(and|or|AND|OR) +", name)
    known = [_known(word) for word in words[::2]]
    if all(known) and len({*map(str.upper, words[1::2])}) < 2:
        joint = f" {words[1].upper()} " if words[1:] else ""
        return joint.join(sorted({one for one in known if one}))
    licence = _named(name, name)
    refs.update(licence.names)
    return licence.expression


def _known(name: str) -> Optional[str]:
    gnu = GNU.fullmatch(name)
    if gnu:
        family, version, later = gnu.groups()
        number = version if "." in version else f"{version}.0"
        if family == "GFDL" and "." not in version:
            return None
        return f"{family}-{number}-{'or-later' if later in ('+', '-or-later') else 'only'}"
    words = re.sub(r"[^a-z0-9.+]+", " ", name.lower())
    words = re.sub(r"\b(the|licen[cs]e|licensed)\b", " ", words)
    return KNOWN.get(" ".join(words.split()))
