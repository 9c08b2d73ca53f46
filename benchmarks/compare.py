"""The predictor against a plain script, side by side in one run: `make benchmark`.

Whole `docker run`s of the same image on the same files, in turn, so that a machine that slows
down slows both. Prints a table of medians and of the median ratio.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
IMAGE = Path("dist/images/py311")
EXAMPLE = Path("dist/example")  # what `make run` leaves
WORK = Path("dist/benchmark").absolute()

# Where Docker accounts for a container, in version 1 and 2 of control groups.
GROUPS = (
    "/sys/fs/cgroup/memory/docker/{id}/memory.stat",
    "/sys/fs/cgroup/system.slice/docker-{id}.scope/memory.stat",
    "/sys/fs/cgroup/docker/{id}/memory.stat",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="pairs of each kind (default: 9)")
    args = parser.parse_args()
    image = prepare()
    with server() as url:
        rows = [
            compare(f"{name} model, {place}", image, model, where, args.runs)
            for name, model in [("trivial", "trivial.pkl"), ("LightGBM", "model.pkl")]
            for place, where in [("local files", str(WORK)), ("50 ms, 100 MB/s", url)]
        ]
    print("| whole docker run | predictor | plain script | time ratio | memory ratio |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(row)


def prepare() -> str:
    """Load the image and lay out the files. Returns the image's reference."""
    reference = json.loads((IMAGE / "image.json").read_text())["reference"]
    call("docker", "load", "--quiet", "--input", IMAGE / "image.tar")
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    for name in ("live.parquet", "live_benchmark_models.parquet", "model.pkl"):
        shutil.copy(EXAMPLE / name, WORK)
    for script in HERE.glob("*.py"):
        shutil.copy(script, WORK)
    call(*python(reference), f"{WORK}/trivial_model.py", f"{WORK}/trivial.pkl")
    return reference


def compare(title: str, image: str, model: str, where: str, runs: int) -> str:
    """Run both in turn. Returns a line of the table."""
    files = [f"{where}/{name}" for name in (model, "live.parquet", "live_benchmark_models.parquet")]
    remote = where.startswith("http")
    flags = [f"--{flag}={file}" for flag, file in zip(("model", "dataset", "benchmarks"), files)]
    post = [f"--post_url={where}/", "--post_data=key=value"] if remote else []
    ours = [*container(), image, *flags, *post, f"--output_dir={WORK}"]
    output = f"{WORK}/plain.csv"
    plain = [*python(image), f"{WORK}/single_process.py", *files, output, *([where] * remote)]
    seconds: list[tuple[float, float]] = []
    for number in range(runs + 1):
        pair = timed(ours), timed(plain)
        if number:  # the first warms caches up
            seconds.append(pair)
        print(f"\r{title}: {number} of {runs}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    memory = statistics.median(peak(ours) / peak(plain) for _ in range(3))
    ratio = statistics.median(a / b for a, b in seconds)
    first, second = (statistics.median(column) for column in zip(*seconds))
    return f"| {title} | {first:.2f} s | {second:.2f} s | {ratio:.2f} | {memory:.2f} |"


def container(*options: str) -> list[str]:
    folder = f"--volume={WORK}:{WORK}"
    return ["docker", "run", "--interactive", "--rm", "--network=host", folder, *options]


def python(image: str) -> list[str]:
    """The image's interpreter, started as the image starts it."""
    return [*container("--entrypoint=/usr/bin/python3"), image, "-IB"]


def call(*argv: object) -> None:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, argv))} failed:\n{done.stderr}")


def timed(argv: list[str]) -> float:
    """Seconds from start to end."""
    started = time.perf_counter()
    call(*argv)
    return time.perf_counter() - started


def peak(argv: list[str]) -> int:
    """Bytes that all processes of the container held at once, looked at every 5 ms."""
    name = f"benchmark-{time.time_ns()}"
    started = threading.Thread(target=call, args=[*argv[:2], f"--name={name}", *argv[2:]])
    started.start()
    file, most = None, 0
    while started.is_alive():
        file = file or find_group(name)
        try:
            most = max(most, anonymous(file.read_text())) if file else 0
        except OSError:
            pass  # over
        time.sleep(0.005)
    return most


def find_group(name: str) -> Path | None:
    inspect = ["docker", "inspect", "--format={{.Id}}", name]
    done = subprocess.run(inspect, capture_output=True, text=True)
    files = [Path(group.format(id=done.stdout.strip())) for group in GROUPS]
    return next((file for file in files if done.returncode == 0 and file.exists()), None)


def anonymous(stat: str) -> int:
    """Memory that is not a file's: `rss` in version 1, `anon` in version 2."""
    values = dict(line.split() for line in stat.splitlines())
    return int(values.get("anon") or values["rss"])


@contextmanager
def server() -> Iterator[str]:
    argv = [sys.executable, str(HERE / "server.py"), str(WORK)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


if __name__ == "__main__":
    main()
