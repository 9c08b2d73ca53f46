"""The command line: run a manifest's models, and gather what became of them."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from numerai_fleet import collect, manifest
from numerai_fleet.engines.base import Engine, EngineError
from numerai_fleet.engines.docker import Docker
from numerai_fleet.engines.local import Limits
from numerai_fleet.engines.swarm import Swarm
from numerai_fleet.follow import Follow
from numerai_fleet.journal import FolderInUse, Journal
from numerai_fleet.manifest import ManifestError, Model
from numerai_fleet.table import Table

OK, FAILED, USAGE, LOST, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = f"""
exit codes:
  {OK}    all models predicted
  {FAILED}    some failed by their own fault
  {USAGE}    wrong usage; nothing was started
  {LOST}    some were lost by the platform's fault, after all tries
  {INTERRUPTED}  interrupted: what runs goes on; the same command takes it over
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        return args.command(args)
    except (ManifestError, FolderInUse, EngineError) as error:
        print(f"numerai-fleet: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this was", file=sys.stderr)
        return INTERRUPTED


def run(args: argparse.Namespace) -> int:
    models = manifest.load(args.manifest, args.registry)
    if args.swarm and args.output_dir is None:
        _check_uploads(models)
    folder = _folder(args)
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
    folder = _existing(args.folder)
    models = manifest.load(str(folder / "manifest.jsonl"), args.registry)
    journal = Journal(folder)
    journal.close()
    found = list(collect.rows(models, journal.records))
    try:
        collect.write(found, args.output or folder / "results.parquet")
        if args.predictions:
            pq.write_table(collect.predictions(found), args.predictions)
    except OSError as error:
        print(f"numerai-fleet: {error}", file=sys.stderr)
        return USAGE
    print(collect.summary(found))
    return _exit_code(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "numerai-fleet",
        description="Runs a whole round of models, and gathers what became of each.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    running = commands.add_parser(
        "run",
        help="run a manifest's models on this machine's Docker engine, or on a Swarm",
        description="Runs all models of a manifest on this machine's Docker engine, some at a time, or on a "
        "Docker Swarm. Started again with the same folder it goes on where it was.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    running.add_argument(
        "manifest", metavar="MANIFEST", help="JSON Lines, one model per line; - is standard input"
    )
    running.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="what is known of the run, results and predictions (default: MANIFEST.run)",
    )
    running.add_argument(
        "--retries",
        type=int,
        default=2,
        metavar="N",
        help="how often a model is tried again after a platform's fault: a download, an upload, a lost "
        "container (default: %(default)s)",
    )
    running.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        help="with --swarm: a folder that all nodes see at this path, for predictions that are not uploaded "
        "(default: all models need post_url)",
    )
    _add_engine(running)
    running.set_defaults(command=run)

    gathering = commands.add_parser(
        "collect", help="write a run's results as one Parquet file, and say what they come to"
    )
    gathering.add_argument("folder", type=Path, metavar="DIR", help="the run's folder")
    gathering.add_argument(
        "--output", type=Path, metavar="FILE", help="(default: DIR/results.parquet)"
    )
    gathering.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="gather the predictions that were not uploaded, too: a column for each model (default: no)",
    )
    _add_registry(gathering)
    gathering.set_defaults(command=gather)

    stopping = commands.add_parser("stop", help="cancel what an interrupted run left running")
    stopping.add_argument("folder", type=Path, metavar="DIR", help="the run's folder")
    _add_engine(stopping)
    stopping.set_defaults(command=stop)
    return parser


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--swarm",
        action="store_true",
        help="on the Docker Swarm that the engine manages, instead of this machine alone",
    )
    parser.add_argument(
        "--parallel",
        type=int,
        metavar="N",
        help="models at once (default: one more than this machine has processors, if there is memory; twice "
        "as many as a Swarm's nodes have processors, because Swarm places them itself)",
    )
    parser.add_argument(
        "--network",
        metavar="NAME",
        help="Docker's network that containers are in; host is their machine's own (default: bridge)",
    )
    parser.add_argument(
        "--limits",
        choices=["none", "numerai"],
        default="numerai",
        help="what a model may take unless its line says otherwise; numerai is 1 CPU, 4 GB, 10 minutes "
        "(default: %(default)s)",
    )
    _add_registry(parser)


def _add_registry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--registry",
        default="",
        metavar="HOST/PATH",
        help="where the images are that a line's python chooses (default: on this machine)",
    )


def _engine(folder: Path, args: argparse.Namespace) -> Engine:
    limits = Limits(args.limits)
    if args.swarm:
        output_dir = getattr(args, "output_dir", None)
        return Swarm(folder, limits, args.parallel, args.network, output_dir)
    return Docker(folder, limits, args.parallel, args.network or "bridge")


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
        more = f" and {len(kept) - 5} more" if len(kept) > 5 else ""
        raise ManifestError(
            f"{', '.join(kept[:5])}{more}: without post_url the predictions would stay on a node; give "
            "--output_dir, a folder that all nodes see"
        )


def _keep(path: Path, models: Sequence[Model]) -> None:
    """Keeps the manifest, for `collect`; secrets and all, hence for nobody else to read."""
    new = path.with_name(f".{path.name}")
    new.touch(0o600)
    new.write_text(manifest.dump(models))
    shutil.move(new, path)


def _exit_code(found: Sequence[dict[str, Any]]) -> int:
    verdicts = {row["verdict"] for row in found}
    if verdicts & {"lost", "not run", "download_failed", "upload_failed", "internal_error"}:
        return LOST
    return FAILED if verdicts - {"ok"} else OK
