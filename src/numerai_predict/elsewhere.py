"""Which image has the modules that a model imports, as far as images.py knows them: not those of
Python's own library, nor the model's author's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from numerai_predict.images import MODULES

_PREFIX = "numerai_predict_py_"


def where(package: str) -> str:
    """The images that have a package that is missing here, to be read after its name."""
    images = MODULES.get(package, "").split()
    major, minor, *_ = sys.version_info
    near = [image for image in images if image.startswith(f"{major}_{minor}")]
    if near:
        return f"{_spoken(near)} has it"
    if images:
        verb = "does" if len(images) == 1 else "do"
        return f"no image of Python {major}.{minor} has it; {_spoken(images)} {verb}"
    return (
        "no image has it. If it is your own code, store it in the pickle: "
        f"cloudpickle.register_pickle_by_value({package})"
    )


def smallest_image(python: tuple[int, int], modules: Iterable[str]) -> str | None:
    """The image of a Python that has these modules, the smaller one if both have; None if none has."""
    tabular = "{}_{}".format(*python)
    needed = tabular
    for module in modules:
        images = MODULES.get(module.partition(".")[0], tabular).replace("/amd64", "").split()
        if f"{tabular}_full" in images:
            needed = f"{tabular}_full"
        elif tabular not in images:
            return None
    return _PREFIX + needed


def _spoken(images: list[str]) -> str:
    """Names, with the platform where that is not the one of this machine."""
    *others, last = (
        f"{_PREFIX}{image}".replace("/amd64", "" if _is_amd64() else " for linux/amd64")
        for image in images
    )
    return f"{', '.join(others)} and {last}" if others else last


def _is_amd64() -> bool:
    return os.uname().machine == "x86_64"
