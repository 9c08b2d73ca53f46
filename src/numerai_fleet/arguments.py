"""What numerai-fleet's command line takes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from numerai_fleet.engines import choice

OK, FAILED, USAGE, LOST, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = f"""
exit codes:
  {OK}    all models predicted
  {FAILED}    some failed by their own fault
  {USAGE}    wrong usage; nothing was started
  {LOST}    some were lost by the platform's fault, after all tries
  {INTERRUPTED}  interrupted: what runs goes on; the same command takes it over
"""
# What each writes.
RENDERED = {
    "kubernetes": "Secrets, Indexed Jobs and a NetworkPolicy for `kubectl apply`",
    "aws-batch": "manifests, job definitions and array jobs for `aws batch`",
    "swarm": "manifests, and a script that makes replicated jobs of them",
    "slurm": "array jobs for `sbatch`, on nodes that see DIR at the same path and have crun or runc",
}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "numerai-fleet",
        description="Runs a whole round of models, and gathers what became of each.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    running = commands.add_parser(
        "run",
        help="run a manifest's models on this machine, on a Docker Swarm, on Kubernetes or by Slurm",
        description="Runs all models of a manifest on this machine, some at a time, on a Docker Swarm, on "
        "Kubernetes, or on a cluster by Slurm. Started again with the same folder it goes on where it was.",
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
        help="with swarm and kubernetes: a folder that all nodes see at this path, for predictions that are "
        "not uploaded (default: all models need post_url)",
    )
    running.add_argument(
        "--cache_dir",
        metavar="DIR",
        help="with kubernetes: a folder of each node, that keeps live data (default: no; each model downloads "
        "its own)",
    )
    _add_engine(running)
    running.set_defaults(command="run")

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
    gathering.set_defaults(command="collect")

    _add_render(commands)

    stopping = commands.add_parser("stop", help="cancel what an interrupted run left running")
    stopping.add_argument("folder", type=Path, metavar="DIR", help="the run's folder")
    _add_engine(stopping)
    stopping.set_defaults(command="stop")
    return parser


def _add_render(commands: Any) -> None:
    rendering = commands.add_parser(
        "render",
        help="describe a manifest's models to Kubernetes, AWS Batch, Swarm or Slurm, to be submitted by hand",
    )
    engines = rendering.add_subparsers(required=True, metavar="ENGINE")
    for name, what in RENDERED.items():
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
        if name != "slurm":
            engine.add_argument(
                "--cache_dir", metavar="DIR", help="keeps live data on each node (default: no)"
            )
        if name in ("kubernetes", "aws-batch"):
            _add_trying_again(engine)
        _add_limits(engine)
        _add_registry(engine)
        engine.set_defaults(command="render", engine=name)
    _add_images(engines.choices["slurm"])
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
        choices=(*choice.LOCAL, *choice.CLUSTERS),
        help="what runs the models. On this machine: docker, podman, or bubblewrap (bwrap), which needs no "
        "daemon. swarm: the Docker Swarm that the engine at DOCKER_HOST manages. kubernetes: the cluster that "
        "kubectl speaks to. slurm: array jobs, on nodes "
        "that have crun or runc and see the run's folder at the same path; SBATCH_PARTITION and its like say "
        "how they are submitted (default: the one that the run was started on, or the first at hand of "
        f"{', '.join(choice.LOCAL)})",
    )
    where.add_argument(
        "--local",
        dest="engine",
        action="store_const",
        const="local",
        help="on this machine, by the first at hand of these",
    )
    _add_images(parser)
    parser.add_argument(
        "--parallel",
        type=int,
        metavar="N",
        help="models at once (default: as many as this machine has processors and memory for; twice as "
        "many as a Swarm's nodes have processors, because Swarm places them itself; 100 Pods, waiting ones too; "
        "in Slurm's queue, as many as one array job may have tasks)",
    )
    parser.add_argument(
        "--namespace",
        metavar="NAME",
        help="with kubernetes: where Pods are (default: where the run was started, else as kubectl's context "
        "says)",
    )
    parser.add_argument(
        "--network",
        metavar="NAME",
        help="the engine's network that containers are in; host is their machine's own, the only one that "
        "bubblewrap and slurm have (default: bridge)",
    )
    _add_limits(parser)
    _add_registry(parser)


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        default=Path("dist/images"),
        metavar="DIR",
        help="with bubblewrap and slurm: where images are, each a folder with image.tar and image.json, as "
        "./pants package leaves them (default: %(default)s)",
    )
    parser.add_argument(
        "--bundles",
        type=Path,
        metavar="DIR",
        help="where bubblewrap and slurm unpack each image, once (default: ~/.cache/numerai-fleet, where the "
        "last four stay; with slurm bundles in the run's folder or DIR, because all nodes must see it)",
    )


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
