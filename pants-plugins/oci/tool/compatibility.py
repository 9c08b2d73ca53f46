"""Tells before an image is run whether its layers fit each other and its platform.

What a layer is and wants is found out when it is built (`linkage`, `wheels`) and kept in its
`layer.json`; an image compares these facts (`check`). Wheels' tags: PEP 425, PEP 600.
"""

from __future__ import annotations

import itertools
import mmap
import posixpath
import re
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from .elf import MAGIC, Elf, read_elf
from .layer import Entry, Tree

# Where the loader looks by itself, below `usr`.
SYSTEM_FOLDER = re.compile(r"usr/(lib|lib64|lib/[^/]+-linux-gnu|local/lib)")
WHEEL_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# What PEP 600 says that the older names mean.
LEGACY_MANYLINUX = {"1": (2, 5), "2010": (2, 12), "2014": (2, 17)}
MANYLINUX = re.compile(r"manylinux(?:_(\d+)_(\d+)|(1|2010|2014))_(\w+)")
# In a wheel's list of files; libraries' names begin with lib.
EXTENSION_MODULE = re.compile(r"(?m)^(?:.*/)?(?!lib)[^/]+\.so,")
NO_LINKAGE: Dict[str, Any] = {
    **{"machines": {}, "needed": {}, "requires": {}},
    **{"provides": {}, "brings": []},
}

Version = Tuple[int, ...]


class IncompatibleImage(ValueError):
    """The message lists all that does not fit."""


def linkage(tree: Tree) -> Dict[str, Any]:
    """What the loader wants of an image that holds `tree`, and what it finds there, for JSON.

    Each fact is told once, with the path of the first file that it is true of:
    `machines` {machine: path}, `needed` {soname: path}, `requires` {soname: {symbol version: path}}.
    `provides` {name: [symbol versions]} are the libraries in the loader's own folders, by soname,
    file name and links; `brings` [name] are those elsewhere, for DT_RUNPATH to find.
    """
    machines: Dict[str, str] = {}
    needed: Dict[str, str] = {}
    requires: Dict[str, Dict[str, str]] = {}
    provides: Dict[str, Set[str]] = {}
    brings: Set[str] = set()
    elves = dict(_elves(tree))
    for path, elf in elves.items():
        machines.setdefault(elf.machine, path)
        for soname in elf.needed:
            needed.setdefault(soname, path)
        for soname, versions in elf.requires.items():
            for version in versions:
                requires.setdefault(soname, {}).setdefault(version, path)
    for path, elf in itertools.chain(elves.items(), _links(tree, elves)):
        names = {posixpath.basename(path), elf.soname or posixpath.basename(path)}
        if SYSTEM_FOLDER.fullmatch(posixpath.dirname(path)):
            for name in names:
                provides.setdefault(name, set()).update(elf.defines)
        else:
            brings |= names
    return {
        "machines": machines,
        "needed": needed,
        "requires": requires,
        "provides": {name: sorted(versions) for name, versions in sorted(provides.items())},
        "brings": sorted(brings),
    }


def wheels(tree: Tree) -> List[Dict[str, Any]]:
    """The installed wheels: `name`, `version`, and `tags`.

    `file` {tags, build} is what the builder wrote of the wheel's file, `licence` {expression, text,
    classifiers} what the metadata say of that, unchanged.
    """
    folders = [path[: -len("/WHEEL")] for path in tree.entries if path.endswith(".dist-info/WHEEL")]
    depth = min((folder.count("/") for folder in folders), default=0)
    # Those deeper down are of packages that others bring along as their own modules.
    return [_wheel(tree, folder) for folder in sorted(folders) if folder.count("/") == depth]


def _wheel(tree: Tree, folder: str) -> Dict[str, Any]:
    metadata = _headers(tree.entries[f"{folder}/METADATA"])
    wheel = _headers(tree.entries[f"{folder}/WHEEL"])
    classifiers = metadata.get("Classifier", [])
    return {
        "name": metadata["Name"][0],
        "version": metadata["Version"][0],
        "tags": _tags(tree, folder),
        "file": {"tags": wheel.get("Tag", []), "build": wheel.get("Build", [""])[0]},
        "licence": {
            "expression": metadata.get("License-Expression", [""])[0],
            # Whole texts are there as well: their first line tells which, mostly.
            "text": metadata.get("License", [""])[0],
            "classifiers": [name for name in classifiers if name.startswith("License :: ")],
        },
    }


def _tags(tree: Tree, folder: str) -> List[str]:
    """What the builder wrote; but a wheel without extension modules is for any Python 3. Some that
    reach their library by ctypes are built by one minor version, and named for all."""
    tags = _headers(tree.entries[f"{folder}/WHEEL"]).get("Tag", [])
    record = tree.entries.get(f"{folder}/RECORD")
    if record is None or EXTENSION_MODULE.search(record.read().decode()):
        return tags
    return [re.sub(r"^cp3\d+-cp3\d+-", "py3-none-", tag) for tag in tags]


def canonical(name: str) -> str:
    """The form in which names of packages are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check(layers: Sequence[Dict[str, Any]], platform: str) -> None:
    """Raises IncompatibleImage unless the layers, given by their `layer.json`, fit each other.

    Facts that a layer does not tell are not checked:
    `linkage` and `wheels`, see the functions here; `python` {"version": minor} of a layer that holds
    an interpreter; `for_python` minor of a layer for one; `optional_libraries` [soname] that may be
    missing.
    """
    image = _Image(layers, platform)
    problems = list(_interpreter_problems(layers, image))
    for layer in layers:
        found = itertools.chain(
            _linkage_problems(layer.get("linkage", NO_LINKAGE), image),
            _wheel_problems(layer.get("wheels", ()), image),
        )
        problems += [f"{layer['what']}: {problem}" for problem in found]
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise IncompatibleImage(f"The layers do not make an image for {platform}:{listed}")


class _Image:
    """What all the layers together have."""

    def __init__(self, layers: Sequence[Dict[str, Any]], platform: str) -> None:
        self.machine = platform.split("/")[1]
        self.pythons = [layer["python"]["version"] for layer in layers if "python" in layer]
        self.optional = {name for layer in layers for name in layer.get("optional_libraries", ())}
        linked = [layer["linkage"] for layer in layers if "linkage" in layer]
        self.brings = {name for facts in linked for name in facts["brings"]}
        self.provides: Dict[str, Set[str]] = {}
        for facts in linked:
            for name, versions in facts["provides"].items():
                self.provides.setdefault(name, set()).update(versions)
        self.glibc = max(map(_number, self._like("libc.so.6", "GLIBC_")), default=())

    def has(self, soname: str) -> bool:
        return soname in self.provides or soname in self.brings

    def lacks(self, soname: str, version: str) -> bool:
        """Whether the loader would refuse a file that wants this of a library which is there."""
        # It only warns of a library that defines no versions at all; which library brought by a
        # wheel it would take is not looked into.
        defined = self.provides.get(soname, set())
        return bool(defined) and soname not in self.brings and version not in defined

    def newest_like(self, soname: str, version: str) -> str:
        family = version.rpartition("_")[0] + "_"
        newest = max(self._like(soname, family), key=_number, default=None)
        return f"no {family}*" if newest is None else f"{newest} at most"

    def _like(self, soname: str, family: str) -> List[str]:
        form = re.compile(rf"{re.escape(family)}\d+(\.\d+)*")
        return [version for version in self.provides.get(soname, ()) if form.fullmatch(version)]

    def __str__(self) -> str:
        pythons = " and ".join(self.pythons)
        glibc = ".".join(map(str, self.glibc))
        return f"Python {pythons or '(none)'}, {self.machine} and glibc {glibc or '(none)'}"


def _interpreter_problems(layers: Sequence[Dict[str, Any]], image: _Image) -> Iterator[str]:
    if len(image.pythons) > 1:
        held = ", ".join(
            f"{layer['what']} ({layer['python']['version']})"
            for layer in layers
            if "python" in layer
        )
        yield f"several layers hold an interpreter: {held}. Keep one of them"
    for layer in layers:
        wanted = layer.get("for_python")
        if wanted is not None and not image.pythons:
            yield f"{layer['what']} is for Python {wanted}, and no layer holds it. Add that layer"
        elif wanted is not None and wanted not in image.pythons:
            yield (
                f"{layer['what']} is for Python {wanted}, the image has "
                f"{' and '.join(image.pythons)}. Build it for the image's interpreter"
            )


def _linkage_problems(linked: Dict[str, Any], image: _Image) -> Iterator[str]:
    for machine, path in linked["machines"].items():
        if machine != image.machine:
            yield (
                f"{path} is for {machine}, the image for {image.machine}. "
                "Take a build for the image's machine"
            )
    for soname, path in linked["needed"].items():
        if not image.has(soname) and soname not in image.optional:
            yield (
                f"{path} needs {soname}, which no layer has. Add the package that holds it or, "
                "if nobody uses this file, name it in the layer's `optional_libraries`"
            )
    for soname, versions in linked["requires"].items():
        for version, path in versions.items():
            if image.lacks(soname, version):
                yield (
                    f"{path} needs {version} of {soname}, which has "
                    f"{image.newest_like(soname, version)}. Lock an older build of this file's "
                    "package, or a newer one of the library's"
                )


def _wheel_problems(installed: Sequence[Dict[str, Any]], image: _Image) -> Iterator[str]:
    for wheel in installed:
        # Nothing is known of a wheel without tags.
        if wheel["tags"] and not any(_fits(tag, image) for tag in wheel["tags"]):
            yield (
                f"the wheel of {wheel['name']} {wheel['version']} is for "
                f"{', '.join(wheel['tags'])}, the image has {image}. "
                "Lock a version that has a wheel for these"
            )


def _fits(tag: str, image: _Image) -> bool:
    """`tag` may be a compressed set, such as `py2.py3-none-any`."""
    parts = tag.split("-")
    return len(parts) == 3 and any(
        _fits_platform(platform, image)
        # Without an interpreter there is another problem to tell.
        and (
            not image.pythons
            or any(_fits_python(python, abi, _number(minor)) for minor in image.pythons)
        )
        for python, abi, platform in itertools.product(*(part.split(".") for part in parts))
    )


def _fits_python(python: str, abi: str, minor: Version) -> bool:
    match = re.fullmatch(r"(cp|py)(\d)(\d*)", python)
    if match is None:
        return False
    wanted = (int(match[2]), int(match[3] or 0))
    if abi == ("none" if match[1] == "py" else "abi3"):
        return wanted[0] == minor[0] and wanted <= minor
    return wanted == minor and match[1] == "cp" and abi in ("none", python)


def _fits_platform(platform: str, image: _Image) -> bool:
    machine = WHEEL_MACHINES[image.machine]
    match = MANYLINUX.fullmatch(platform)
    if match is None:
        return platform in ("any", f"linux_{machine}")
    glibc = LEGACY_MANYLINUX[match[3]] if match[3] else (int(match[1]), int(match[2]))
    return match[4] == machine and glibc <= image.glibc


def _number(version: str) -> Version:
    """(2, 36) of `2.36` and of `GLIBC_2.36`."""
    return tuple(int(part) for part in version.rpartition("_")[2].split("."))


def _elves(tree: Tree) -> Iterator[Tuple[str, Elf]]:
    for path, entry in tree.files():
        elf = _read(entry)
        if elf is not None:
            yield path, elf


def _read(entry: Entry) -> Optional[Elf]:
    if isinstance(entry.content, bytes):
        return read_elf(entry.content)
    assert entry.content is not None, "only files are asked"
    with open(entry.content, "rb") as file:
        # Most files of a layer are none, and an empty one cannot be mapped.
        if file.read(len(MAGIC)) != MAGIC:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return read_elf(data)


def _links(tree: Tree, elves: Dict[str, Elf]) -> Iterator[Tuple[str, Elf]]:
    """Links to libraries of the same layer."""
    for path, entry in tree.entries.items():
        if entry.target is not None:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.target))
            elf = elves.get(target.lstrip("/"))
            if elf is not None:
                yield path, elf


def _headers(entry: Entry) -> Dict[str, List[str]]:
    headers: Dict[str, List[str]] = {}
    for line in entry.read().decode(errors="replace").splitlines():
        if not line:
            break
        name, _, value = line.partition(": ")
        headers.setdefault(name, []).append(value.strip())
    return headers
