"""Counts the tests in a folder of JUnit reports, and names those that were skipped, with the reason."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path


def main() -> None:
    counts: Counter[str] = Counter()
    for report in sorted(Path(sys.argv[1]).glob("*.xml")):
        for case in ElementTree.parse(report).iter("testcase"):
            outcome = {child.tag for child in case} & {"skipped", "failure", "error"}
            counts["skipped" if "skipped" in outcome else "failed" if outcome else "passed"] += 1
            for skip in case.iter("skipped"):
                print(f"skipped {case.get('classname')}::{case.get('name')}: {skip.get('message')}")
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")


if __name__ == "__main__":
    main()
