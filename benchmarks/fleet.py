"""A round of small models by `numerai-fleet run`, against a shell loop of `docker run`: `make benchmark_fleet`.

Both take the same models and data from the same server (server.py) and post to it, in turn, round
after round, so that a machine that slows down slows both. Prints models per minute, their ratio, and
where the time of a model goes.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NamedTuple

from compare import HERE, call, load, server

FLEET = ("python3.11", "dist/numerai-fleet.pex")
WORK = Path("dist/benchmark_fleet").absolute()
POST_DATA = "key=a&policy=b"
# Of a run, one after the other; what is downloaded comes while the worker starts.
PHASES = ("start", "load", "predict", "validate", "upload")


class Round(NamedTuple):
    """Args:
    seconds: of all models.
    results: each model's --result.
    each: seconds of each model, from the start of its container to its end's being known.
    """

    seconds: float
    results: list[dict[str, Any]]
    each: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="of loop and fleet each (default: %(default)s)"
    )
    parser.add_argument("--parallel", type=int, help="the fleet's (default: as the fleet chooses)")
    parser.add_argument(
        "--engine", help="the fleet's; the loop is always Docker's (default: docker)"
    )
    args = parser.parse_args()
    image = load("py311")
    prepare(image, args.models)
    flags = [f"--engine={args.engine or 'docker'}"]
    flags += [f"--parallel={args.parallel}"] if args.parallel else []
    rounds = []
    with server(WORK / "served", gateway()) as url:
        lines = entries(url, image, args.models)
        loop(lines[:1])  # the first warm caches up
        fleet(lines[:1], *flags)
        for number in range(args.rounds):
            rounds.append((loop(lines), fleet(lines, *flags)))
            print(f"{number + 1} of {args.rounds}: {ratio(*rounds[-1]):.2f}", file=sys.stderr)
    show(args.models, rounds)


def prepare(image: str, models: int) -> None:
    """Lay out what is served."""
    shutil.rmtree(WORK, ignore_errors=True)
    served = WORK / "served"
    served.mkdir(parents=True)
    for_root = ("--user=0", f"--volume={served}:{served}", f"--volume={HERE.absolute()}:/in:ro")
    python = ("--entrypoint=/usr/bin/python3", image, "-IB", "/in/small_models.py")
    call("docker", "run", "--rm", *for_root, *python, served, models)


def gateway() -> str:
    """This machine's address, as containers see it."""
    inspect = ("docker", "network", "inspect", "bridge")
    told = subprocess.run(inspect, stdout=subprocess.PIPE, check=True).stdout
    (config,) = json.loads(told)[0]["IPAM"]["Config"]
    # An engine that has just made its bridge does not tell: it gave it the first address.
    return config.get("Gateway") or str(ip_network(config["Subnet"])[1])


def entries(url: str, image: str, models: int) -> list[dict[str, str]]:
    """A manifest's lines."""
    data = {
        "dataset": f"{url}/live.parquet",
        "benchmarks": f"{url}/live_benchmark_models.parquet",
        "post_url": f"{url}/",
        "post_data": POST_DATA,
    }
    return [
        {"name": f"model-{number}", "image": image, "model": f"{url}/{number}.pkl", **data}
        for number in range(models)
    ]


def loop(lines: Sequence[dict[str, str]]) -> Round:
    """One after the other, with the flags that a user gives, and --result, which tells phases."""
    folder = fresh("loop")
    script = ["set -e"]
    for line in lines:
        name, image = line["name"], line["image"]
        given = (f"--{key}={value}" for key, value in line.items() if key not in ("name", "image"))
        run = shlex.join(("docker", "run", "--rm", image, *given, "--result=-"))
        script.append(f"{run} > {folder}/{name}.json 2> {folder}/log; date +%s.%N >> {folder}/ends")
    started, begun = time.perf_counter(), time.time()
    call("sh", "-c", "\n".join(script))
    seconds = time.perf_counter() - started
    ends = [begun, *map(float, (folder / "ends").read_text().split())]
    each = [end - start for start, end in zip(ends, ends[1:])]
    return Round(seconds, results(folder), each)


def fleet(lines: Sequence[dict[str, str]], *flags: str) -> Round:
    """From the command to its end."""
    folder = fresh("fleet")
    manifest = folder / "round.jsonl"
    manifest.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    started = time.perf_counter()
    call(*FLEET, "run", manifest, *flags)
    seconds = time.perf_counter() - started
    times: dict[str, dict[str, float]] = {"started": {}, "ended": {}}
    for event in map(json.loads, (folder / "round.jsonl.run/journal.jsonl").open()):
        times[event["event"]][event["name"]] = event["time"]
    each = [end - times["started"][name] for name, end in times["ended"].items()]
    return Round(seconds, results(folder / "round.jsonl.run/results"), each)


def fresh(name: str) -> Path:
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def results(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    failed = [result["message"] for result in found if result["code"]]
    if failed:
        sys.exit(f"{len(failed)} of {len(found)} models failed: {failed[0]}")
    return found


def ratio(by_loop: Round, by_fleet: Round) -> float:
    return by_loop.seconds / by_fleet.seconds


def show(models: int, rounds: Sequence[tuple[Round, Round]]) -> None:
    ratios = [ratio(*pair) for pair in rounds]
    sides = tuple(zip(*rounds))
    rates = [statistics.median(60 * models / each.seconds for each in side) for side in sides]
    print(f"| {models} small models, {len(rounds)} rounds | loop | fleet | ratio |")
    print("|---|---|---|---|")
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"| models per minute | {rates[0]:.0f} | {rates[1]:.0f} | {spread} |\n")
    print("| median seconds of a model | loop | fleet |")
    print("|---|---|---|")
    columns = [seconds(side) for side in sides]
    for phase in columns[0]:
        print(f"| {phase} | {columns[0][phase]:.2f} | {columns[1][phase]:.2f} |")


def seconds(side: Sequence[Round]) -> dict[str, float]:
    """Medians: of all, of each phase, and of what is none: the container's start and end, the
    interpreter's start."""
    phases = [result["phases"] for each in side for result in each.results]
    rows = {phase: statistics.median(found[phase] for found in phases) for phase in PHASES}
    whole = statistics.median(time for each in side for time in each.each)
    return {"all": whole, "container": whole - sum(rows.values()), **rows}


if __name__ == "__main__":
    main()
