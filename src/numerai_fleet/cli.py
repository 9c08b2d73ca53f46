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

from numerai_fleet import collect, manifest
from numerai_fleet.engines import choice
from numerai_fleet.engines.base import Engine, EngineError
from numerai_fleet.engines.bubblewrap import Bubblewrap
from numerai_fleet.engines.docker import Docker
from numerai_fleet.engines.local import Limits
from numerai_fleet.engines.podman import Podman
from numerai_fleet.engines.swarm import Swarm
from numerai_fleet.follow import Follow
from numerai_fleet.journal import FolderInUse, Journal
from numerai_fleet.manifest import ManifestError, Model
from numerai_fleet.render import aws_batch, kubernetes, swarm
from numerai_fleet.render.batches import Options
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

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
# By name: what writes the files, and what they are.
RENDERED: dict[str, tuple[Callable[..., dict[str, str]], str]] = {
    "kubernetes": (
        lambda models, options, args: kubernetes.files(models, options),
        "Secrets, Indexed Jobs and a NetworkPolicy for `kubectl apply`",
    ),
    "aws-batch": (
        lambda models, options, args: aws_batch.files(
            models, options, args.manifests, args.execution_role, args.queue
        ),
        "manifests, job definitions and array jobs for `aws batch`",
    ),
    "swarm": (
        lambda models, options, args: swarm.files(models, options),
        "manifests, and a script that makes replicated jobs of them",
    ),
}


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
    try:
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
    files = args.files(models, _options(args), args)
    args.output.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        _write_private(args.output / name, text)
        print(args.output / name)
    return OK


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
        help="run a manifest's models on this machine, or on a Swarm",
        description="Runs all models of a manifest on this machine, some at a time, or on a Docker Swarm. "
        "Started again with the same folder it goes on where it was.",
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
    gathering.add_argument(
        "folder",
        type=Path,
        metavar="DIR|MANIFEST",
        help="the run's folder; the manifest with --logs",
    )
    gathering.add_argument(
        "--logs",
        type=Path,
        metavar="FILE",
        help="what containers said that `run` did not start: their logs, one after the other",
    )
    gathering.add_argument(
        "--output", type=Path, metavar="FILE", help="(default: results.parquet in DIR, or here)"
    )
    gathering.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="gather the predictions that were not uploaded, too: a column for each model (default: no)",
    )
    _add_registry(gathering)
    gathering.set_defaults(command=gather)

    _add_render(commands)

    stopping = commands.add_parser("stop", help="cancel what an interrupted run left running")
    stopping.add_argument("folder", type=Path, metavar="DIR", help="the run's folder")
    _add_engine(stopping)
    stopping.set_defaults(command=stop)
    return parser


def _add_render(commands: Any) -> None:
    rendering = commands.add_parser(
        "render",
        help="describe a manifest's models to Kubernetes, AWS Batch or Swarm, to be submitted by hand",
    )
    engines = rendering.add_subparsers(required=True, metavar="ENGINE")
    for name, (files, what) in RENDERED.items():
        engine = engines.add_parser(
            name,
            help=what,
            description=f"Writes {what}. Whoever can read the files can read the manifest's secrets.",
        )
        engine.add_argument("manifest", metavar="MANIFEST", help="JSON Lines; - is standard input")
        engine.add_argument(
            "--output", type=Path, metavar="DIR", default=Path("."), help="(default: here)"
        )
        engine.add_argument(
            "--name", default="round", help="what all names begin with (default: %(default)s)"
        )
        engine.add_argument(
            "--parallel",
            type=int,
            metavar="N",
            help="models of an array at once (default: the engine's; twice a Swarm's nodes)",
        )
        engine.add_argument(
            "--cache_dir", metavar="DIR", help="keeps live data on each node (default: no)"
        )
        if name != "swarm":
            _add_trying_again(engine)
        _add_limits(engine)
        _add_registry(engine)
        engine.set_defaults(command=describe, files=files)
    aws = engines.choices["aws-batch"]
    aws.add_argument(
        "--manifests",
        required=True,
        metavar="ARN",
        help="a secret in Secrets Manager with the address of each batch's manifest, by batches' names",
    )
    aws.add_argument(
        "--execution_role", required=True, metavar="ARN", help="the role that may read it"
    )
    aws.add_argument("--queue", required=True, help="the job queue's name or ARN")


def _add_trying_again(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retries",
        type=int,
        default=2,
        metavar="N",
        help="how often a model is tried again after the platform's fault (default: %(default)s)",
    )
    parser.add_argument(
        "--deadline",
        type=int,
        default=1800,
        metavar="SECONDS",
        help="for one try, download and upload included (default: %(default)s)",
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--engine",
        choices=choice.LOCAL,
        help="what runs the models on this machine; bubblewrap (bwrap) needs no daemon (default: the one "
        f"that the run was started on, or the first at hand of {', '.join(choice.LOCAL)})",
    )
    where.add_argument(
        "--swarm",
        action="store_true",
        help="on the Docker Swarm that the engine manages, instead of this machine alone",
    )
    parser.add_argument(
        "--images",
        type=Path,
        default=Path("dist/images"),
        metavar="DIR",
        help="with bubblewrap: where images are, each a folder with image.tar and image.json, as ./pants "
        "package leaves them; each is unpacked once, to ~/.cache/numerai-fleet (default: %(default)s)",
    )
    parser.add_argument(
        "--parallel",
        type=int,
        metavar="N",
        help="models at once (default: as many as this machine has processors and memory for; twice as "
        "many as a Swarm's nodes have processors, because Swarm places them itself)",
    )
    parser.add_argument(
        "--network",
        metavar="NAME",
        help="the engine's network that containers are in; host is their machine's own, the only one that "
        "bubblewrap has (default: bridge)",
    )
    _add_limits(parser)
    _add_registry(parser)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limits",
        choices=["none", "numerai"],
        default="numerai",
        help="what a model may take unless its line says otherwise; numerai is 1 CPU, 4 GB, 10 minutes "
        "(default: %(default)s)",
    )


def _add_registry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--registry",
        default="",
        metavar="HOST/PATH",
        help="where the images are that a line's python chooses (default: on this machine)",
    )


def _options(args: argparse.Namespace) -> Options:
    given = {key: getattr(args, key) for key in ("retries", "deadline") if hasattr(args, key)}
    if not DNS_LABEL.fullmatch(args.name):
        raise ManifestError(f"--name {args.name}: lower-case letters, digits and - make a name")
    limits = Limits(args.limits)
    return Options(args.name, limits, parallel=args.parallel, cache_dir=args.cache_dir, **given)


def _engine(folder: Path, args: argparse.Namespace) -> Engine:
    common = (folder, Limits(args.limits), args.parallel)

    def bubblewrap() -> Engine:
        if args.network not in (None, "host"):
            raise EngineError(f"its sandboxes have no network {args.network}, only the host's")
        return Bubblewrap(*common, args.images)

    engines = {
        "docker": lambda: Docker(*common, args.network or "bridge"),
        "podman": lambda: Podman(*common, args.network or "bridge"),
        "bubblewrap": bubblewrap,
        "swarm": lambda: Swarm(*common, args.network, getattr(args, "output_dir", None)),
    }
    return choice.choose(folder, "swarm" if args.swarm else args.engine, engines)


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
