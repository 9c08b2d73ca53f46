"""Reads lists of what an image holds with the standards' own libraries; what these refuse is printed.

Takes CycloneDX (*.cdx.json) and SPDX (*.spdx.json) files; exits 1 if something is wrong with one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.model.bom import Bom  # pants: no-infer-dep
from cyclonedx.schema import SchemaVersion  # pants: no-infer-dep
from cyclonedx.validation.json import JsonStrictValidator  # pants: no-infer-dep
from packageurl import PackageURL  # pants: no-infer-dep
from spdx_tools.spdx.parser.parse_anything import parse_file  # pants: no-infer-dep
from spdx_tools.spdx.validation import document_validator  # pants: no-infer-dep


def cyclonedx_problems(file: Path) -> Iterator[str]:
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(file.read_text()):
        yield str(error)
        return
    # Raises where references lead nowhere.
    Bom.from_json(json.loads(file.read_text())).validate()


def spdx_problems(file: Path) -> Iterator[str]:
    for message in document_validator.validate_full_spdx_document(parse_file(str(file))):
        yield f"{message.context.spdx_id}: {message.validation_message}"


def purl_problems(file: Path) -> Iterator[str]:
    """Every package URL has the one form that its specification gives it."""
    for component in json.loads(file.read_text())["components"]:
        purl = component.get("purl", "")
        if purl and PackageURL.from_string(purl).to_string() != purl:
            yield f"{purl} should be {PackageURL.from_string(purl).to_string()}"


def main() -> int:
    problems = []
    for file in map(Path, sys.argv[1:]):
        if file.name.endswith(".cdx.json"):
            found = [*cyclonedx_problems(file), *purl_problems(file)]
        else:
            found = [*spdx_problems(file)]
        problems += [f"{file.name}: {problem}" for problem in found]
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
