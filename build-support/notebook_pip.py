"""What `pip` is in the environment of notebook_pickle.py: installs nothing, because the image would not have
it, and says of what is asked for what is there.

    pip install -q --upgrade numerapi cloudpickle==3.1.1
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

# Options that are followed by a value, which is not a package.
VALUES = (
    *("-c", "--constraint", "-e", "--editable", "-f", "--find-links", "-i", "--index-url"),
    *("-t", "--target", "--extra-index-url", "--prefix", "--root", "--timeout", "--trusted-host"),
)


def main() -> None:
    command, *words = sys.argv[1:] or [""]
    if command != "install":
        sys.exit("pip: only `pip install` is known here: the packages are the image's")
    print("pip: nothing is installed; the notebook runs with the image's packages")
    problems = [problem for asked in packages(words) if (problem := problem_of(asked))]
    for problem in problems:
        print(f"pip: {problem}")
    sys.exit(bool(problems))


def packages(words: list[str]) -> Iterator[str]:
    remaining = iter(words)
    for word in remaining:
        if word in ("-r", "--requirement"):
            lines = Path(next(remaining, "")).read_text().splitlines()
            yield from packages([line.partition("#")[0].strip() for line in lines])
        elif word in VALUES:
            next(remaining, None)
        elif word and not word.startswith("-"):
            yield word


def problem_of(asked: str) -> str | None:
    try:
        wanted = Requirement(asked)
    except InvalidRequirement:
        return f"{asked} is left out: it names no package of an index"
    found = installed(wanted.name)
    if found is None:
        return f"{wanted.name} is not in the image: a pickle that imports it will not run there"
    if not wanted.specifier.contains(found, prereleases=True):
        return f"{asked} is asked for, the image has {found}"
    return None


def installed(name: str) -> str | None:
    """Its version, or that of the package which brings the same module: xgboost-cpu for xgboost."""
    try:
        return version(name)
    except PackageNotFoundError:
        others = packages_distributions().get(name.replace("-", "_"), [])
        return version(others[0]) if others else None


if __name__ == "__main__":
    main()
