"""What models that run on this machine share: their files, what of it they may see, the room there is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from numerai_fleet.manifest import DEFAULTS, Model

# Bytes that the launcher and the interpreter take beside the model.
BESIDE = 512 << 20
# The fields of a line that can name a file of this machine.
FILES = ("model", "dataset", "benchmarks")
# As the predictor reads sizes.
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


# Gives what waits for its end; what it needed is gone when that is left.
Fetch = Callable[[Model, str, Path], AbstractContextManager[Callable[[], object]]]


class Unusable(Exception):
    """What a model's line names is not on this machine: its caller's fault, as exit code 2."""


@dataclass(frozen=True)
class Limits:
    """What a model may take, unless its line says otherwise.

    Args:
        preset: the predictor's --limits.
        memory: bytes, of the machine's, that are reserved for each model.
    """

    preset: str = "numerai"
    memory: int = 4 << 30

    def of(self, model: Model) -> int:
        """Bytes that the model may take."""
        match = re.fullmatch(r"([\d.]+) *([kmgt]?).*", _own(model).get("memory", "").lower())
        return int(float(match[1]) * UNITS[match[2]]) if match else self.memory

    def preset_of(self, model: Model) -> str:
        return _own(model).get("preset", self.preset)

    def flags(self, model: Model) -> list[str]:
        """A flag would win over the line."""
        return [] if "preset" in _own(model) else [f"--limits={self.preset}"]


@dataclass(frozen=True)
class Prepared:
    """A model's files on this machine.

    Args:
        out: its own folder, the only one it gets to write to.
        manifest: a manifest with this model alone, for nobody else to read.
        mounts: further files that it gets to see, each at the same path as here.
        keeps_predictions: whether they are not uploaded.
    """

    out: Path
    manifest: Path
    mounts: tuple[Path, ...]
    keeps_predictions: bool


class Workshop:
    """Prepares models' files below a run's folder, and gathers what they leave.

    Args:
        folder: of the run.
        fetch: starts to download a dataset to a folder, with a model's image.
    """

    def __init__(self, folder: Path, fetch: Fetch) -> None:
        self.folder = folder.absolute()
        self._fetch = fetch
        self._data: dict[str, Path | None] = {}
        for name in ("out", "results", "predictions", "data"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def line(self, model: Model) -> tuple[dict[str, Any], tuple[Path, ...]]:
        """The model's line with what its references name, and data that is here; and the files of this
        machine that it names then.

        Raises Unusable: a file that its line names is not here.
        """
        entry = {**DEFAULTS, **model.entry}
        files = []
        for flag in ("model", "dataset", "benchmarks", "post_url", "post_data"):
            if flag in entry:
                entry[flag] = resolved(model.name, flag, entry[flag])
        shared = self._shared(model, [entry["dataset"], entry["benchmarks"]])
        for flag in ("dataset", "benchmarks"):
            if path := shared[entry[flag]]:
                entry[flag] = str(path)
        for flag in FILES:
            if _is_here(entry[flag]):
                path = Path(entry[flag]).absolute()
                entry[flag] = str(path)
                files.append(path)
        return entry, tuple(dict.fromkeys(files))

    def prepare(self, model: Model) -> Prepared:
        """Raises Unusable: a file that its line names is not here."""
        entry, mounts = self.line(model)
        out = self.folder / "out" / model.name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        manifest = out.with_name(f".{model.name}.jsonl")
        manifest.unlink(missing_ok=True)
        with open(os.open(manifest, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(json.dumps(entry) + "\n")
        return Prepared(out, manifest, mounts, "post_url" not in entry)

    def gather(self, name: str, out: Path | None = None) -> dict[str, Any] | None:
        """A model's result, once it has ended; what it left is in its place afterwards."""
        out = out or self.folder / "out" / name
        try:
            result = json.loads((out / "result.json").read_text())
        except (OSError, ValueError):
            result = None
        return keep(self.folder, name, result, out)

    def clear(self, name: str) -> None:
        shutil.rmtree(self.folder / "out" / name, ignore_errors=True)
        (self.folder / "out" / f".{name}.jsonl").unlink(missing_ok=True)

    def _shared(self, model: Model, sources: Sequence[str]) -> dict[str, Path | None]:
        """The one copy of each dataset on this machine; None where the predictor is to try itself.
        Those that are not here yet are fetched side by side."""
        unknown = [source for source in sources if source not in self._data]
        missing = {
            self._place(source): source
            for source in unknown
            if not (_is_here(source) or self._find(source))
        }
        with ExitStack() as fetches:
            waits = []
            for folder, source in missing.items():
                folder.mkdir(exist_ok=True)
                waits.append(fetches.enter_context(self._fetch(model, source, folder)))
            for wait in waits:
                wait()
        self._data |= {source: self._find(source) for source in unknown}
        return {source: self._data[source] for source in sources}

    def _find(self, source: str) -> Path | None:
        """Only whole files have these names: downloads are renamed at their end."""
        files = [path for path in self._place(source).rglob("*") if path.is_file()]
        whole = [path for path in files if not path.name.startswith(".")]
        return whole[0] if whole else None

    def _place(self, source: str) -> Path:
        # Signatures change with every manifest.
        address = source.partition("?")[0] if _is_url(source) else source
        return self.folder / "data" / hashlib.sha256(address.encode()).hexdigest()[:12]


def keep(
    folder: Path, name: str, result: dict[str, Any] | None, out: Path | None
) -> dict[str, Any] | None:
    """Puts a model's result in its place in the run's folder, and what it left in `out`; returns the
    result, with the place of the predictions."""
    kept = folder / "predictions" / f"{name}.csv"
    for csv in out.glob("live_predictions-*.csv") if out else ():
        shutil.move(csv, kept)
    if result is not None:
        # Else it was uploaded, and vanished with the container.
        result["output"] = str(kept) if kept.exists() else None
        target = folder / "results" / f"{name}.json"
        temporary = target.with_name(f".{target.name}")
        temporary.write_text(json.dumps(result, indent=2) + "\n")
        temporary.replace(target)
    return result


def room(parallel: int, running: int, limits: Limits) -> int:
    """How many more models may be started, as far as processors go, and memory: one that just started
    does not use its own yet."""
    fits = machine_memory() // (limits.memory + BESIDE)
    return min(parallel - running, max(fits, 1 - running))


def processor(
    model: Model, limits: Limits, there: Sequence[int], running: Sequence[int | None]
) -> int | None:
    """For a model that may use one processor: that which the fewest have. None leaves it to the
    predictor, which would choose one at random: two models may share it while another is idle.

    Args:
        there: the processors that can be chosen.
        running: those of the models that run.
    """
    if limits.preset_of(model) != "numerai" or not there:
        return None
    taken = Counter(running)
    return min(there, key=lambda each: taken[each])


def machine_memory() -> int:
    """Bytes that can be had now without swapping (proc_meminfo(5): MemAvailable)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (available,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(available) << 10


def _own(model: Model) -> dict[str, str]:
    """The limits that its line gives."""
    return model.entry.get("limits", {})


def resolved(name: str, flag: str, value: str | dict[str, str]) -> str:
    """The value that a reference names: on this machine, submitter and container are one."""
    if isinstance(value, str):
        return value
    ((kind, what),) = value.items()
    try:
        if kind == "env":
            return os.environ[what].strip()
        folder = os.environ.get("NUMERAI_PREDICT_SECRETS", "/run/secrets")
        return Path(folder if kind == "secret" else "", what).read_text().strip()
    except KeyError:
        raise Unusable(f"{name}: {flag}: there is no environment variable {what}") from None
    except OSError as error:
        reason = f"{kind} {what} cannot be read: {error.strerror}"
        raise Unusable(f"{name}: {flag}: {reason}") from None


def _is_here(source: str) -> bool:
    return not _is_url(source) and Path(source).is_file()


def _is_url(source: str) -> bool:
    return urlsplit(source).scheme in ("http", "https")
