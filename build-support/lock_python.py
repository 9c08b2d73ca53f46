"""`make lock` for Python: pyproject.toml -> poetry.lock -> the requirements files that Pants and the
image layers read, and what else follows from pyproject.toml's list of Python versions. `--check`
compares instead of writing, without the network."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomlkit
from cleo.io.inputs.argv_input import ArgvInput
from cleo.io.null_io import NullIO
from packaging.utils import NormalizedName, canonicalize_name
from pip._internal.commands import create_command
from poetry.console.application import Application
from poetry.core.constraints.version import parse_constraint
from poetry.core.packages.package import Package
from poetry.core.version.markers import BaseMarker, EmptyMarker, parse_marker
from poetry.factory import Factory
from poetry.packages.transitive_package_info import TransitivePackageInfo
from poetry.poetry import Poetry
from poetry_plugin_export.exporter import Exporter  # type: ignore[import-untyped]
from uv import find_uv_bin

FOLDER = "3rdparty/python"
# What the list of Python versions becomes for BUILD files, for Pants and for the predictor.
PRELUDE = f"{FOLDER}/pythons.py"
OPTIONS = f"{FOLDER}/pythons.toml"
IMAGES = "src/numerai_predict/images.py"
# Which modules distributions have.
MODULES = f"{FOLDER}/modules.toml"
# The platforms of images, as markers know them.
LINUX = {
    platform: {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine}
    for platform, machine in {"amd64": "x86_64", "arm64": "aarch64"}.items()
}
# What poetry.lock cannot hold has a lock of its own: NAME.in -> NAME.txt, from this Python upwards.
OWN_LOCKS = {"buildgrid": "3.11", "numerai-tools": "3.11", "pants": "3.7"}
# Dependency groups.
PREDICTOR, TABULAR, FULL, TESTS = map(canonicalize_name, ("main", "tabular", "full", "tests"))
# What numerai-predict pins for one Python only bounds what others ask for.
BOUNDS = re.compile(r"python-3-\d+")

Locked = dict[Package, TransitivePackageInfo]
Groups = set[NormalizedName]
# A flavour's layers by name, each with patterns of its packages' names.
Layers = dict[str, dict[str, list[str]]]


def notice(source: str) -> str:
    return f"# Derived from {source} by 'make lock'; do not edit.\n"


def exports(root: Path) -> dict[str, str]:
    """Path -> content of every file that follows from pyproject.toml and poetry.lock."""
    poetry = Factory().create_poetry(root, disable_plugins=True)
    locked = poetry.locker.locked_packages()
    pythons, images = python_versions(root), settings(root)
    lines: dict[str, set[str]] = {}
    for python in pythons:
        name = resolve_of(python)
        lines[name] = requirements(locked, {PREDICTOR, TESTS}, python)
        for layer, packages in layers(locked, python, images).items():
            lines[f"{name}/{layer}"] = packages
    for tool in sorted(
        set(poetry.package.dependency_group_names()) - {PREDICTOR, TABULAR, FULL, TESTS}
    ):
        if not BOUNDS.fullmatch(tool):
            lines[f"tools/{tool}"] = tool_requirements(locked, tool, oldest=pythons[0])
    files = {"requirements.txt": poetry_export(poetry), **lists(pythons, layer_names(images))}
    named = tomlkit.parse((root / MODULES).read_text()).unwrap()
    files[IMAGES] += module_list(modules(locked, pythons, images, named))
    for name in sorted(lines):
        files[f"{FOLDER}/{name}.txt"] = notice("poetry.lock") + "".join(sorted(lines[name]))
    return files


def python_versions(root: Path) -> list[str]:
    """The one list: pyproject.toml's classifiers, in order of age."""
    classifiers = "\n".join(project(root)["classifiers"])
    found = re.findall(r"(?m)^Programming Language :: Python :: 3\.(\d+)$", classifiers)
    return [f"3.{minor}" for minor in sorted(map(int, found))]


def project(root: Path) -> dict[str, Any]:
    return tomlkit.parse((root / "pyproject.toml").read_text()).unwrap()["project"]


def settings(root: Path) -> dict[str, Any]:
    """What pyproject.toml says of the images."""
    return tomlkit.parse((root / "pyproject.toml").read_text()).unwrap()["tool"]["numerai-predict"]


def layer_names(settings: dict[str, Any]) -> dict[str, list[str]]:
    """Each flavour's layers of packages, from the lowest up."""
    named = settings["layers"]
    return {
        "tabular": ["predictor", *named["tabular"], "tabular-rest"],
        "full": [*named["full"], "full-rest"],
    }


def specifier(pythons: list[str]) -> str:
    """`>=3.10,<3.14`, from the oldest to the newest."""
    return f">={pythons[0]},<3.{int(pythons[-1][2:]) + 1}"


def resolve_of(python: str) -> str:
    return "py" + python.replace(".", "")


def lists(pythons: list[str], layers: dict[str, list[str]]) -> dict[str, str]:
    """The versions and layers in the words of those who cannot read pyproject.toml: BUILD files,
    Pants' options, the predictor inside an image."""
    resolves = {resolve_of(python): f"{FOLDER}/{resolve_of(python)}.txt" for python in pythons}
    constraints = {resolve_of(python): [f"CPython=={python}.*"] for python in pythons}
    options = {
        "python": {
            "resolves": {"add": resolves},
            "resolves_to_interpreter_constraints": {"add": constraints},
        },
        # What parses everybody's code and libraries.
        "mypy": {"interpreter_constraints": [f"CPython>=3.11,{specifier(pythons).split(',')[1]}"]},
    }
    pairs = ", ".join(f"({python.replace('.', ', ')})" for python in pythons)
    head = notice("pyproject.toml")
    return {
        PRELUDE: f"{head}PYTHONS = ({quoted(pythons)})\n" + "".join(layer_lists(layers)),
        OPTIONS: head + tomlkit.dumps(options),
        IMAGES: f"{head}IMAGES: tuple[tuple[int, int], ...] = ({pairs})\n",
    }


def layer_lists(layers: dict[str, list[str]]) -> Iterator[str]:
    # Pants takes only values that are hashable.
    for flavour, names in layers.items():
        yield f"{flavour.upper()}_LAYERS = ({quoted(names)},)\n"


def quoted(values: list[str]) -> str:
    return ", ".join(f'"{value}"' for value in values)


def poetry_export(poetry: Poetry) -> str:
    """What a machine needs to make pickles for the tabular images."""
    exporter = Exporter(poetry, NullIO()).only_groups({PREDICTOR, TABULAR})
    with TemporaryDirectory() as folder:
        exporter.export("requirements.txt", Path(folder), "requirements.txt")
        return (Path(folder) / "requirements.txt").read_text()


def layers(locked: Locked, python: str, settings: dict[str, Any]) -> dict[str, set[str]]:
    """Each layer's lines for one Python."""
    names = (name for flavour in layer_names(settings).values() for name in flavour)
    found: dict[str, set[str]] = {name: set() for name in names}
    for package, info in locked.items():
        marker = installed_for(package, locked, python, settings)
        if not marker.is_empty():
            layer = layer_of(package, info, python, settings["layers"])
            found[layer].add(requirement(package, marker))
    return found


def installed_for(
    package: Package, locked: Locked, python: str, settings: dict[str, Any]
) -> BaseMarker:
    """On which machines a package is in an image of this Python."""

    def wanted(name: NormalizedName) -> Iterator[BaseMarker]:
        for package, info in locked.items():
            if package.name == name:
                yield only_for(info.get_marker({PREDICTOR, TABULAR, FULL}), python)

    if package.name in settings["left-out"]:
        return EmptyMarker()
    marker = only_for(locked[package].get_marker({PREDICTOR, TABULAR, FULL}), python)
    for superseding in wanted(settings["superseded"].get(package.name)):
        marker = marker.intersect(superseding.invert())
    return marker


def layer_of(package: Package, info: TransitivePackageInfo, python: str, layers: Layers) -> str:
    """The layer that names a package among those of its flavour; else the predictor's, if that
    needs it, or the rest of its flavour."""
    for group, rest in ((PREDICTOR, "predictor"), (TABULAR, "tabular-rest")):
        if not only_for(info.get_marker({group}), python).is_empty():
            return naming(package, layers["tabular"]) or rest
    return naming(package, layers["full"]) or "full-rest"


def naming(package: Package, layers: dict[str, list[str]]) -> str | None:
    for layer, patterns in layers.items():
        if any(fnmatchcase(package.name, pattern) for pattern in patterns):
            return layer
    return None


def modules(
    locked: Locked, pythons: list[str], settings: dict[str, Any], named: dict[str, list[str]]
) -> dict[str, list[str]]:
    """By top-level module, the images that have it: of each Python the smaller one, as `3_11_full`,
    and as `3_11_full/amd64` if only that platform's image has it."""
    platforms: dict[tuple[str, str, str], set[str]] = {}
    for python, (package, info) in product(pythons, locked.items()):
        tabular = only_for(info.get_marker({PREDICTOR, TABULAR}), python)
        flavour = "_full" if tabular.is_empty() else ""
        marker = installed_for(package, locked, python, settings)
        on = {platform for platform, linux in LINUX.items() if marker.validate(linux)}
        for module in modules_of(package.name, named) if on else ():
            platforms.setdefault((module, python, flavour), set()).update(on)
    found: dict[str, list[str]] = {}
    for (module, python, flavour), on in platforms.items():
        if not flavour or (module, python, "") not in platforms:
            image = python.replace(".", "_") + flavour
            found.setdefault(module, []).append(image if len(on) > 1 else f"{image}/{on.pop()}")
    return found


def modules_of(distribution: str, named: dict[str, list[str]]) -> list[str]:
    """Called like it, unless they are named."""
    for pattern, found in named.items():
        if fnmatchcase(distribution, pattern):
            return found
    return [distribution.replace("-", "_")]


def module_list(found: dict[str, list[str]]) -> str:
    lines = (f'    "{module}": "{" ".join(found[module])}",\n' for module in sorted(found))
    return f"MODULES: dict[str, str] = {{\n{''.join(lines)}}}\n"


def requirements(locked: Locked, groups: Groups, python: str) -> set[str]:
    """The lines of these groups for one Python."""
    return lines_of(
        (package, only_for(info.get_marker(groups), python)) for package, info in locked.items()
    )


def tool_requirements(locked: Locked, tool: NormalizedName, oldest: str) -> set[str]:
    """The lines of a tool, for all Pythons that Pants runs tools with."""
    return lines_of(
        (package, also_below(info.get_marker({tool}), oldest)) for package, info in locked.items()
    )


def lines_of(packages: Iterable[tuple[Package, BaseMarker]]) -> set[str]:
    return {requirement(package, marker) for package, marker in packages if not marker.is_empty()}


def only_for(marker: BaseMarker, python: str) -> BaseMarker:
    return marker.reduce_by_python_constraint(parse_constraint(f"~{python}.0"))


def also_below(marker: BaseMarker, oldest: str) -> BaseMarker:
    """Pants tests and type-checks its plugins on Python 3.9, where Poetry resolves nothing: what
    the oldest Python of the range gets is what 3.9 gets."""
    below = parse_marker(f"python_version < '{oldest}'")
    return marker.union(only_for(marker, oldest).intersect(below))


def requirement(package: Package, marker: BaseMarker) -> str:
    line = f"{package.name}=={package.version}" + ("" if marker.is_any() else f" ; {marker}")
    hashes = sorted(file["hash"] for file in package.files)
    return " \\\n    ".join([line, *(f"--hash={digest}" for digest in hashes)]) + "\n"


def drop_descriptions(lock: Path) -> None:
    """Nothing reads packages' descriptions, and some name hosts, which no file here may."""
    lock.write_text(re.sub(r"(?m)^description = .*$", 'description = ""', lock.read_text()))


def lock(root: Path, update: bool) -> None:
    index = create_command("install").parser.get_default_values().index_url
    relock(root, index, update)
    drop_descriptions(root / "poetry.lock")
    files = exports(root)
    files |= {f"{FOLDER}/{name}.txt": own_lock(root, name, index, update) for name in OWN_LOCKS}
    for path, content in files.items():
        file = root / path
        changed = not file.exists() or file.read_text() != content
        if changed:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        print("written   " if changed else "unchanged ", path)
    for path in orphans(root, files):
        (root / path).unlink()
        print("removed   ", path)


def relock(root: Path, index: str, update: bool) -> None:
    # PyPI's JSON API, which Poetry would use, is missing from most mirrors: give it pip's index.
    os.environ.setdefault("POETRY_PYPI_MIRROR_URL", index)
    os.environ["POETRY_VIRTUALENVS_CREATE"] = "false"
    poetry = Application()
    poetry.auto_exits(False)
    command = ["poetry", "lock", f"--directory={root}", *(["--regenerate"] if update else [])]
    if status := poetry.run(ArgvInput(command)):
        sys.exit(status)


def own_lock(root: Path, name: str, index: str, update: bool) -> str:
    """What NAME.in asks for, with all that it needs, pinned and hashed."""
    locked = root / FOLDER / f"{name}.txt"
    with TemporaryDirectory() as folder:
        output = Path(folder) / locked.name
        if locked.exists() and not update:
            # uv keeps the versions that it finds in its output file.
            output.write_text(locked.read_text())
        options = f"--universal --python-version={OWN_LOCKS[name]} --generate-hashes"
        command = f"pip compile {FOLDER}/{name}.in --quiet --no-header --no-annotate"
        subprocess.run(
            [find_uv_bin(), *command.split(), *options.split(), "--output-file", output],
            cwd=root,
            env={**os.environ, "UV_DEFAULT_INDEX": index},
            check=True,
        )
        return notice(f"{FOLDER}/{name}.in") + output.read_text()


def orphans(root: Path, expected: Iterable[str]) -> list[str]:
    """Exports of a group or Python that is gone."""
    globs = ("py3*.txt", "py3*/*.txt", "tools/*.txt")
    files = [file for glob in globs for file in (root / FOLDER).glob(glob)]
    return sorted({file.relative_to(root).as_posix() for file in files} - set(expected))


def problems(root: Path) -> Iterator[str]:
    locker = Factory().create_poetry(root, disable_plugins=True).locker
    if not locker.is_locked():
        yield "poetry.lock is missing"
        return
    if not locker.is_fresh():
        yield "poetry.lock does not match pyproject.toml"
    expected = exports(root)
    for path, content in expected.items():
        if not (root / path).exists():
            yield f"{path} is missing"
        elif (root / path).read_text() != content:
            yield f"{path} is stale"
    for path in orphans(root, expected):
        yield f"{path} is not needed any more"
    for name in OWN_LOCKS:
        source, locked = f"{FOLDER}/{name}.in", f"{FOLDER}/{name}.txt"
        if not (root / locked).exists():
            yield f"{locked} is missing"
        elif not is_locked((root / locked).read_text(), source, (root / source).read_text()):
            yield f"{locked} is stale"


def is_locked(text: str, source: str, asked: str) -> bool:
    """Whether all that is asked for is pinned, and all that is pinned is hashed."""
    head, *lines = text.replace("\\\n", "").splitlines()
    hashed = head + "\n" == notice(source) and all("--hash=sha256:" in line for line in lines)
    return hashed and pins(asked) <= pins("\n".join(lines))


def pins(text: str) -> set[tuple[str, str]]:
    found = re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)
    return {(canonicalize_name(name), version) for name, version in found}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="lock_python", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 if stale")
    parser.add_argument("--update", action="store_true", help="take the newest versions that fit")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="default: this folder")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    asked, listed = project(root)["requires-python"], specifier(python_versions(root))
    if asked != listed:
        sys.exit(f'pyproject.toml: requires-python is "{asked}", the classifiers say "{listed}"')
    if not options.check:
        lock(root, options.update)
    elif found := list(problems(root)):
        sys.exit("\n".join(f"{problem}: run 'make lock'" for problem in found))
    else:
        print("up to date")


if __name__ == "__main__":
    main()
