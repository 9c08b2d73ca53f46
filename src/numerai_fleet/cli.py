"""The command line: run a manifest's models, and gather what became of them."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from numerai_fleet import arguments, collect, manifest
from numerai_fleet.arguments import FAILED, INTERRUPTED, LOST, OK, USAGE
from numerai_fleet.engines import choice
from numerai_fleet.engines.base import Engine, EngineError, listed
from numerai_fleet.engines.bubblewrap import Bubblewrap
from numerai_fleet.engines.docker import Docker
from numerai_fleet.engines.local import Limits
from numerai_fleet.engines.podman import Podman
from numerai_fleet.engines.slurm import Slurm
from numerai_fleet.engines.swarm import Swarm
from numerai_fleet.engines.unpacked import Images
from numerai_fleet.follow import Follow
from numerai_fleet.journal import FolderInUse, Journal
from numerai_fleet.manifest import ManifestError, Model
from numerai_fleet.render import aws_batch, kubernetes, slurm, swarm
from numerai_fleet.render.batches import Options
from numerai_fleet.table import Table

# What `run` takes for some engines only: any other would let it fall without a word.
OWN_FLAGS = {
    "output_dir": ("swarm", "kubernetes"),
    "cache_dir": ("kubernetes",),
    "namespace": ("kubernetes",),
}
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = arguments.parser().parse_args(argv)
    commands = {"run": run, "stop": stop, "collect": gather, "render": describe}
    try:
        return commands[args.command](args)
    except (ManifestError, FolderInUse, EngineError) as error:
        print(f"numerai-fleet: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this was", file=sys.stderr)
        return INTERRUPTED


def run(args: argparse.Namespace) -> int:
    models = manifest.load(args.manifest, args.registry)
    folder = _folder(args)
    elsewhere = {"swarm", "kubernetes"} & {args.engine, choice.before(folder)}
    if elsewhere and args.output_dir is None:
        _check_uploads(models)
    kept = folder / "manifest.jsonl"
    journal = Journal(folder)
    try:
        _keep(kept, models)
        engine = _engine(folder, args)
        table = Table(args.retries)
        records = Follow(models, engine, journal, table, args.retries).run()
    finally:
        journal.close()
    found = list(collect.rows(models, records))
    collect.write(found, folder / "results.parquet")
    print(collect.summary(found))
    return _exit_code(found)


def stop(args: argparse.Namespace) -> int:
    """Cancels what a run that was interrupted left running."""
    _engine(_existing(args.folder), args).stop()
    return OK


def gather(args: argparse.Namespace) -> int:
    try:
        if args.logs:
            models = manifest.load(str(args.folder), args.registry)
            records = collect.from_logs(args.logs.read_text(errors="replace"))
            output = Path("results.parquet")
        else:
            folder = _existing(args.folder)
            models = manifest.load(str(folder / "manifest.jsonl"), args.registry)
            journal = Journal(folder)
            journal.close()
            records = journal.records
            output = folder / "results.parquet"
        found = list(collect.rows(models, records))
        collect.write(found, args.output or output)
        if args.predictions:
            pq.write_table(collect.predictions(found), args.predictions)
    except OSError as error:
        print(f"numerai-fleet: {error}", file=sys.stderr)
        return USAGE
    print(collect.summary(found))
    return _exit_code(found)


def describe(args: argparse.Namespace) -> int:
    """Writes an engine's description of a manifest's models."""
    models = manifest.load(args.manifest, args.registry)
    options = _options(args)
    if args.engine == "slurm":
        images = Images(args.images, args.bundles or args.output / "bundles")
        for script in slurm.write(models, options, images, args.output):
            print(script)
        return OK
    if args.engine == "aws-batch":
        aws = (args.manifests, args.execution_role, args.queue)
        files = aws_batch.files(models, options, *aws)
    else:
        files = {"kubernetes": kubernetes, "swarm": swarm}[args.engine].files(models, options)
    args.output.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        _write_private(args.output / name, text)
        print(args.output / name)
    return OK


def _options(args: argparse.Namespace) -> Options:
    names = ("cache_dir", "retries", "deadline")
    given = {name: getattr(args, name) for name in names if hasattr(args, name)}
    if not DNS_LABEL.fullmatch(args.name):
        raise ManifestError(f"--name {args.name}: lower-case letters, digits and - make a name")
    limits = Limits(args.limits)
    return Options(args.name, limits, parallel=args.parallel, **given)


def _engine(folder: Path, args: argparse.Namespace) -> Engine:
    common = (folder, Limits(args.limits), args.parallel)

    def without_network() -> None:
        if args.network not in (None, "host"):
            raise EngineError(f"its models have no network {args.network}, only their node's own")

    def bubblewrap() -> Engine:
        without_network()
        return Bubblewrap(*common, Images(args.images, args.bundles))

    def by_slurm() -> Engine:
        without_network()
        return Slurm(*common, Images(args.images, args.bundles or folder / "bundles"))

    output_dir = getattr(args, "output_dir", None)

    def by_kubernetes() -> Engine:
        if args.network is not None:
            raise EngineError("its Pods are in its own network: --network is not for them")
        # The library takes 0.4 s to import, which no other engine needs to.
        from numerai_fleet.engines.kubernetes import Kubernetes

        cache_dir = getattr(args, "cache_dir", None)
        return Kubernetes(*common, args.namespace, cache_dir, output_dir)

    engines: dict[str, Callable[[], Engine]] = {
        "docker": lambda: Docker(*common, args.network or "bridge"),
        "podman": lambda: Podman(*common, args.network or "bridge"),
        "bubblewrap": bubblewrap,
        "swarm": lambda: Swarm(*common, args.network, output_dir),
        "kubernetes": by_kubernetes,
        "slurm": by_slurm,
    }

    def checked(name: str) -> Callable[[], Engine]:
        def make() -> Engine:
            for flag, owners in OWN_FLAGS.items():
                if getattr(args, flag, None) is not None and name not in owners:
                    raise EngineError(f"--{flag} is for {' and '.join(owners)}, not for {name}")
            return engines[name]()

        return make

    return choice.choose(folder, args.engine, {name: checked(name) for name in engines})


def _folder(args: argparse.Namespace) -> Path:
    if args.folder is not None:
        return args.folder
    if args.manifest == "-":
        raise ManifestError("a manifest from standard input needs --folder")
    return Path(f"{args.manifest}.run")


def _existing(folder: Path) -> Path:
    if not (folder / "journal.jsonl").exists():
        raise ManifestError(f"{folder} is no run's folder: it has no journal.jsonl")
    return folder


def _check_uploads(models: Sequence[Model]) -> None:
    kept = [model.name for model in models if "post_url" not in model.entry]
    if kept:
        raise ManifestError(
            f"{listed(kept)}: without post_url the predictions would stay on a node; give "
            "--output_dir, a folder that all nodes see"
        )


def _keep(path: Path, models: Sequence[Model]) -> None:
    """Keeps the manifest, for `collect`."""
    _write_private(path, manifest.dump(models))


def _write_private(path: Path, text: str) -> None:
    """Secrets and all, hence for nobody else to read."""
    new = path.with_name(f".{path.name}")
    new.touch(0o600)
    new.write_text(text)
    shutil.move(new, path)


def _exit_code(found: Sequence[dict[str, Any]]) -> int:
    verdicts = {row["verdict"] for row in found}
    if verdicts & {"lost", "not run", "download_failed", "upload_failed", "internal_error"}:
        return LOST
    return FAILED if verdicts - {"ok"} else OK
