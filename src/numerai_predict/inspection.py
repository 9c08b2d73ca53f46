"""What a pickle holds and which Python it is for, found without executing anything of it.

This is diagnosis, not protection: it tells why a model would not run here, never that it is safe.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO, Literal, NamedTuple

from numerai_predict.bytecode import Code, Python, pythons, spoken
from numerai_predict.elsewhere import smallest_image, where
from numerai_predict.images import IMAGES
from numerai_predict.pickle_machine import Machine, NotAPickle

# Bytecode beyond this is not looked at: a small pickle can repeat a big function endlessly.
_MAX_BYTECODE = 4 << 20
_MAX_FUNCTIONS = 200

# Where the serialized models of libraries record versions: how they begin, the parts of the version,
# and what each part is. LightGBM records the version of its format only.
_RECORDED: list[tuple[str, bytes, bytes, Callable[[bytes], object]]] = [
    ("lightgbm (model text)", b"tree\n", rb"\nversion=(v\d+)\n", bytes.decode),
    ("xgboost", b"{L", rb"(?s)version\[#L.{8}i(.)i(.)i(.)", ord),
    ("xgboost", b'{"learner', rb'"version":\[(\d+),(\d+),(\d+)\]', int),
    ("catboost", b"CBM1", rb"CatBoost release ([\d.]*\d)", bytes.decode),
]
# Libraries that wheels of other names install too.
_DISTRIBUTIONS = {"xgboost": ("xgboost", "xgboost-cpu"), "lightgbm (model text)": ("lightgbm",)}

# What people hand in instead of pickles, by how it begins.
_NO_PICKLES = [
    (rb"version https://git-lfs", "a Git LFS pointer: run git lfs pull"),
    (rb"(?s)\s*<\?xml.*<Error>", "an XML error message"),
    (rb"\s*<\?xml", "XML"),
    (rb"(?i)\s*<(!doctype|html)", "an HTML page"),
    (rb"{L|{\"learner", "a model that XGBoost saved itself: pickle a function"),
    (rb"tree\nversion=", "a model that LightGBM saved itself: pickle a function"),
    (rb"CBM1", "a model that CatBoost saved itself: pickle a function"),
    (rb"\s*[{\[]", "JSON"),
    (rb"PK\x03\x04", "a zip archive (torch.save writes such, too)"),
    (rb"\x28\xb5\x2f\xfd", "compressed with zstd: use gzip, bzip2 or xz"),
    (rb"\x04\x22\x4d\x18", "compressed with lz4: use gzip, bzip2 or xz"),
    (rb"x[\x01\x5e\x9c\xda]", "compressed with zlib, as joblib.dump does"),
    (rb"PAR1", "a parquet file"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"\x93NUMPY", "a NumPy array file"),
    (rb"(?s)7z\xbc\xaf|Rar!|.{257}ustar", "an archive"),
]

Status = Literal["installed", "missing", "unclear"]


class Import(NamedTuple):
    """A module that a pickle imports, and the names that it takes from it.

    Its status is "unclear" if its package is here but shows no such module, which another version
    may have or which the package may make when imported; and for private modules at the top, which
    packages make too, as scikit-learn does `_loss`.
    """

    module: str
    names: tuple[str, ...]
    status: Status


@dataclass(frozen=True)
class Inspection:
    """What is known of a pickle; of a faulty one, what came before the fault.

    Attributes:
        size: of the file, in bytes.
        compression: gzip, bzip2, xz or None.
        protocol: of the pickle, None if it is none.
        names: by module, what the pickle imports.
        versions: by library, the version that the pickle records; several are joined by commas.
        functions: the distinct names of code objects, each with the Pythons it can be from.
        fault: why it cannot be unpickled, to be read after the file's name, or None.
        complete: whether all was looked at. Very long pickles are not.
    """

    name: str
    size: int
    compression: str | None = None
    protocol: int | None = None
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    functions: tuple[tuple[str, frozenset[Python]], ...] = ()
    fault: str | None = None
    complete: bool = True

    @cached_property
    def pythons(self) -> frozenset[Python] | None:
        """The Pythons that all of its functions can be from; None if it holds no functions."""
        sets = [versions for _, versions in self.functions]
        return frozenset.intersection(*sets) if sets else None

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """What it imports, and whether this environment has it. Imports nothing."""
        return tuple(
            Import(module, names, _status(module)) for module, names in sorted(self.names.items())
        )

    def missing(self) -> tuple[str, ...]:
        """The modules that it imports from packages that are not installed here."""
        return tuple(found.module for found in self.imports if found.status == "missing")

    def lack(self) -> str | None:
        """What is missing here, and where it is; None if nothing is."""
        packages = dict.fromkeys(module.partition(".")[0] for module in self.missing())
        found = "; ".join(f"{package}: {where(package)}" for package in packages)
        return f"not installed here: {found}" if found else None

    def images(self) -> tuple[str, ...]:
        """The images that have what it imports and whose Python can run its functions."""
        return tuple(
            image
            for python, image in self._images.items()
            if self.pythons is None or python in self.pythons
        )

    @cached_property
    def _images(self) -> dict[Python, str]:
        """Of each Python, the smallest image that has what it imports."""
        images = {python: smallest_image(python, self.names) for python in IMAGES}
        return {python: image for python, image in images.items() if image}

    def mismatch(self, version: tuple[Any, ...] = sys.version_info) -> str | None:
        """Why this Python cannot run its functions, and what can; None if it may.

        Args:
            version: of Python, as (major, minor, ...).
        """
        major, minor, *_ = version
        here = (major, minor)
        if self.pythons is None or here in self.pythons:
            return None
        others = spoken(self._images or IMAGES)
        remedy = f"there is no image for it: make the pickle again with Python {others}"
        if self.images():
            remedy = "run it with " + " or ".join(self.images())
        return f"{self._origin(here)}, this is Python {spoken([here])}: {remedy}"

    def _origin(self, here: Python) -> str:
        function, versions = next(pair for pair in self.functions if here not in pair[1])
        if not versions:
            return f"its function {function!r} was compiled by a Python that is not known here"
        if self.pythons:
            return f"its functions were compiled by Python {spoken(self.pythons)}"
        other, others = next(
            pair for pair in self.functions if not versions & pair[1] or not self.pythons
        )
        return (
            f"its functions were compiled by different Pythons ({function!r} by {spoken(versions)},"
            f" {other!r} by {spoken(others) or 'an unknown one'})"
        )

    def verdict(self) -> str:
        """In one sentence, whether it can run here."""
        if self.fault:
            return f"cannot be loaded: it {self.fault}"
        if mismatch := self.mismatch():
            return mismatch
        if lack := self.lack():
            return lack
        return f"nothing speaks against Python {spoken([sys.version_info[:2]])}, which is here"

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON has it; Pythons as `3.11`."""
        return {
            "size": self.size,
            "compression": self.compression,
            "protocol": self.protocol,
            "imports": [found._asdict() for found in self.imports],
            "versions": {
                library: {"recorded": version, "installed": installed_version(library)}
                for library, version in self.versions.items()
            },
            "pythons": None if self.pythons is None else _names(self.pythons),
            "functions": [
                {"name": name, "pythons": _names(versions)} for name, versions in self.functions
            ],
            "images": list(self.images()),
            "fault": self.fault,
            "mismatch": self.mismatch(),
            "missing": list(self.missing()),
            "complete": self.complete,
        }

    def table(self) -> str:
        """All of it, for people to read."""
        facts = [("size", f"{self.size:,} bytes")]
        if self.compression:
            facts.append(("compression", self.compression))
        if self.protocol is not None:
            facts.append(("pickle protocol", str(self.protocol)))
        if self.pythons is not None:
            facts.append(("bytecode", f"Python {spoken(self.pythons) or 'unknown or several'}"))
            facts.append(
                ("functions", _shortened(dict.fromkeys(name for name, _ in self.functions)))
            )
        if not self.fault:
            facts.append(("images", ", ".join(self.images()) or "none"))
        if not self.fault and not self.complete:
            facts.append(("note", "only the beginning was looked at"))
        blocks = [_aligned(facts)]
        if self.versions:
            rows = [
                (library, version, installed_version(library) or "-")
                for library, version in self.versions.items()
            ]
            blocks.append(_aligned([("library", "recorded", "here"), *rows]))
        if self.imports:
            lines = [(module, status, _shortened(names)) for module, names, status in self.imports]
            blocks.append(_aligned([("import", "here", "names"), *lines]))
        return "\n\n".join(
            [_printable(self.name), *blocks, _printable(f"Verdict: {self.verdict()}")]
        )


def inspect(file: BinaryIO, name: str = "model.pkl") -> Inspection:
    """Read a pickle's opcodes.

    Args:
        file: seekable, opened for reading bytes; read from its beginning. Compressed or not.
        name: to call it by.

    Returns:
        What it holds. Whatever is wrong with it, nothing is raised but OSError of the file itself.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    stream, compression = decompressed(file)
    head = b""
    contents = _Contents()
    machine = Machine(stream, contents.code, contents.item, contents.payload)
    fault = None
    try:
        head = stream.read(512)
        stream.seek(0)
        machine.run()
    except NotAPickle as error:
        fault = _what_it_is(head, machine.imports) or str(error)
    except Exception as error:  # of all the ways in which compressed data can be damaged
        if not compression:
            raise
        fault = f"is damaged: its {compression} data cannot be decompressed ({error})"
    trusted = "_make_function" in machine.imports.get("cloudpickle.cloudpickle", {})
    return Inspection(
        name=name,
        size=size,
        compression=compression,
        protocol=None if fault and not machine.protocol else machine.protocol,
        names={module: tuple(names) for module, names in machine.imports.items()},
        versions={library: ", ".join(found) for library, found in contents.versions.items()},
        functions=contents.functions(trusted),
        fault=fault,
        complete=fault is None and machine.complete and contents.complete,
    )


def decompressed(file: BinaryIO) -> tuple[BinaryIO, str | None]:
    """A file's content whatever its name, and what it is compressed with: gzip, bzip2, xz or None.

    Args:
        file: seekable, at its beginning, where it is left.
    """
    import io

    magic = file.read(10)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        import gzip

        return io.BufferedReader(gzip.GzipFile(fileobj=file)), "gzip"  # type: ignore[arg-type]
    if re.match(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", magic):
        import bz2

        return io.BufferedReader(bz2.BZ2File(file)), "bzip2"  # type: ignore[arg-type]
    if magic.startswith(b"\xfd7zXZ\0"):
        import lzma

        return io.BufferedReader(lzma.LZMAFile(file)), "xz"  # type: ignore[arg-type]
    return file, None


class _Contents:
    """Collects what the machine comes across."""

    def __init__(self) -> None:
        self.versions: dict[str, dict[str, None]] = {}
        self.complete = True
        self._codes: dict[Code, None] = {}
        self._bytecode = 0

    def code(self, arguments: tuple[Any, ...]) -> None:
        code = Code.from_arguments(arguments)
        if code is None:
            return
        self._bytecode += len(code.instructions)
        if self._bytecode > _MAX_BYTECODE:
            self.complete = False
            return
        self._codes[code] = None

    def item(self, key: str, value: Any) -> None:
        if key == "_sklearn_version" and isinstance(value, str):
            self._found("scikit-learn", value)

    def payload(self, data: bytes) -> None:
        for library, begins, pattern, part in _RECORDED:
            if data.startswith(begins) and (match := re.search(pattern, data)):
                self._found(library, ".".join(str(part(found)) for found in match.groups()))

    def _found(self, library: str, version: str) -> None:
        versions = self.versions.setdefault(library, {})
        if len(versions) < 10:
            versions[version[:40]] = None

    def functions(self, trust_line_table: bool) -> tuple[tuple[str, frozenset[Python]], ...]:
        found: dict[tuple[str, frozenset[Python]], None] = {}
        sets = set()
        for code in self._codes:
            versions = pythons(code, trust_line_table)
            if len(found) < _MAX_FUNCTIONS or versions not in sets:
                found[code.name[:100], versions] = None
                sets.add(versions)
        return tuple(found)


def _what_it_is(head: bytes, imports: dict[str, dict[str, None]]) -> str | None:
    """Name what is not a pickle, from its first 512 bytes or what could be read of it."""
    for begins, what in _NO_PICKLES:
        if re.match(begins, head):
            return f"is no pickle but {what}"
    if "NumpyArrayWrapper" in imports.get("joblib.numpy_pickle", {}):
        return "was written by joblib.dump, which puts arrays outside of it: use cloudpickle.dump"
    return None


def _status(module: str) -> Status:
    """Whether this environment has a module, without importing even its packages."""
    if module in sys.modules:
        return "installed"
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        return "missing"
    path: Any = None
    for depth in range(1, len(parts) + 1):
        spec = _spec(".".join(parts[:depth]), path)
        if spec is None:
            return "missing" if depth == 1 and not module.startswith("_") else "unclear"
        path = spec.submodule_search_locations or ()
    return "installed"


def _spec(module: str, path: Any) -> Any:
    """What the import system knows of a module, its package's path being known."""
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(module, path)
        except (ImportError, AttributeError, OSError, ValueError):
            continue
        if spec is not None:
            return spec
    return None


def installed_version(library: str) -> str | None:
    """A library's version in this environment, None if it is not here."""
    from importlib import metadata

    for distribution in _DISTRIBUTIONS.get(library, (library,)):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def _names(versions: Iterable[Python]) -> list[str]:
    return [f"{major}.{minor}" for major, minor in sorted(versions)]


def _shortened(names: Iterable[str]) -> str:
    """Names in one line of reasonable length."""
    text = ", ".join(names)
    return text if len(text) <= 72 else text[:69] + "..."


def _aligned(rows: Iterable[tuple[str, ...]]) -> str:
    """Columns of text."""
    cells = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
    return "\n".join(lines)


def _printable(text: str) -> str:
    """Without what terminals would obey: a pickle's names are its author's."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
