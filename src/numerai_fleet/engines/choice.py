"""Which engine a run is on: it stays the same for all its submitters, or models would run twice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from numerai_fleet.engines.base import Engine, EngineError

# In this order, where none is asked for.
LOCAL = ("docker", "podman", "bubblewrap")
CLUSTERS = ("swarm", "kubernetes", "slurm")
ENGINE = "engine"  # in the run's folder


def before(folder: Path) -> str | None:
    """The engine that the run was started on, if it was."""
    kept = folder / ENGINE
    return kept.read_text() if kept.exists() else None


def choose(folder: Path, wanted: str | None, engines: Mapping[str, Callable[[], Engine]]) -> Engine:
    """The engine that is wanted, or that the run was started on, or the first at hand.

    Args:
        folder: of the run.
        wanted: a name; `local` for any that runs models on this machine; None for any.
        engines: makes each, by its name; raises EngineError where it is not at hand.

    Raises:
        EngineError: none is at hand, or the run is on another.
    """
    earlier = before(folder)
    if wanted == "local" and earlier in (None, *LOCAL):
        wanted = earlier
    if earlier and wanted not in (None, earlier):
        raise EngineError(
            f"{folder} was started on {earlier}, and some of its models may still run there: go on with "
            f"that engine, or take another --folder for {wanted}; if nothing runs there, remove "
            f"{folder / ENGINE}"
        )
    chosen = wanted or earlier
    missing = []
    for name in (chosen,) if chosen else LOCAL:
        try:
            engine = engines[name]()
        except EngineError as error:
            missing.append(f"{name}: {error}")
            continue
        (folder / ENGINE).write_text(name)
        print("; ".join([f"models run on {name}", *missing]), file=sys.stderr, flush=True)
        return engine
    raise EngineError("\n".join(missing if chosen else ["no engine is at hand", *missing]))
