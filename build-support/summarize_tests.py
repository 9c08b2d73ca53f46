"""Counts the tests in a folder of JUnit reports, and names those that were skipped or failed, and why."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

OUTCOMES = {"skipped": "skipped", "failure": "failed", "error": "failed"}
# Of a reason: what was compared can be whole logs.
LENGTH = 400


def main() -> None:
    counts: Counter[str] = Counter()
    named: dict[str, list[str]] = {"skipped": [], "failed": []}
    for report in sorted(Path(sys.argv[1]).glob("*.xml")):
        for case in ElementTree.parse(report).iter("testcase"):
            told = [child for child in case if child.tag in OUTCOMES]
            counts[OUTCOMES[told[0].tag] if told else "passed"] += 1
            for child in told:
                reason = " ".join((child.get("message") or "").split())[:LENGTH]
                name = f"{case.get('classname')}::{case.get('name')}"
                named[OUTCOMES[child.tag]].append(f"{OUTCOMES[child.tag]} {name}: {reason}")
    # Last what matters most: of a long log its end is kept.
    for line in (*named["skipped"], *named["failed"]):
        print(line)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")


if __name__ == "__main__":
    main()
