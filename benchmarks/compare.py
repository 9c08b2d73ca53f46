"""The predictor against a plain script, and the full image against the tabular one: `make benchmark`.

Whole `docker run`s on the same files, in turn, so that a machine that slows down slows both. Prints
tables of medians and of the median ratio. The full image is compared when it has been built
(`./pants package images:py311-full`).
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
IMAGES = Path("dist/images")
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
    tabular = load("py311")
    prepare(tabular)
    models = [("trivial", "trivial.pkl"), ("LightGBM", "model.pkl")]
    with server(WORK) as url:
        rows = [
            compare(
                f"{name} model, {place}",
                predictor(tabular, model, where),
                plain_script(tabular, model, where),
                args.runs,
            )
            for name, model in models
            for place, where in [("local files", str(WORK)), ("50 ms, 100 MB/s", url)]
        ]
    show("predictor", "plain script", rows)
    if (IMAGES / "py311-full/image.tar").exists():
        full = load("py311-full")
        rows = [
            compare(
                f"{name} model, local files",
                predictor(full, model, str(WORK)),
                predictor(tabular, model, str(WORK)),
                args.runs,
            )
            for name, model in models
        ]
        show("full image", "tabular image", rows)


def load(image: str) -> str:
    """Load the image into Docker. Returns its reference."""
    folder = IMAGES / image
    call("docker", "load", "--quiet", "--input", folder / "image.tar")
    reference: str = json.loads((folder / "image.json").read_text())["reference"]
    return reference


def prepare(image: str) -> None:
    """Lay out the files."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    for name in ("live.parquet", "live_benchmark_models.parquet", "model.pkl"):
        shutil.copy(EXAMPLE / name, WORK)
    for script in HERE.glob("*.py"):
        shutil.copy(script, WORK)
    call(*python(image), f"{WORK}/trivial_model.py", f"{WORK}/trivial.pkl")


def predictor(image: str, model: str, where: str) -> list[str]:
    """`where` is a folder, or a server's address to which predictions are then posted."""
    flags = zip(("model", "dataset", "benchmarks"), files(model, where))
    post = [f"--post_url={where}/", "--post_data=key=value"] if is_remote(where) else []
    options = [f"--{flag}={file}" for flag, file in flags]
    return [*container(), image, *options, *post, f"--output_dir={WORK}"]


def plain_script(image: str, model: str, where: str) -> list[str]:
    post = [where] if is_remote(where) else []
    script = f"{WORK}/single_process.py"
    return [*python(image), script, *files(model, where), f"{WORK}/plain.csv", *post]


def files(model: str, where: str) -> list[str]:
    return [f"{where}/{name}" for name in (model, "live.parquet", "live_benchmark_models.parquet")]


def is_remote(where: str) -> bool:
    return where.startswith("http")


def compare(title: str, ours: list[str], other: list[str], runs: int) -> str:
    """Run both in turn. Returns a line of the table."""
    seconds: list[tuple[float, float]] = []
    for number in range(runs + 1):
        pair = timed(ours), timed(other)
        if number:  # the first warms caches up
            seconds.append(pair)
        print(f"\r{title}: {number} of {runs}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    memory = statistics.median(peak(ours) / peak(other) for _ in range(3))
    ratio = statistics.median(a / b for a, b in seconds)
    first, second = (statistics.median(column) for column in zip(*seconds))
    return f"| {title} | {first:.2f} s | {second:.2f} s | {ratio:.2f} | {memory:.2f} |"


def show(ours: str, other: str, rows: list[str]) -> None:
    print(f"| whole docker run | {ours} | {other} | time ratio | memory ratio |")
    print("|---|---|---|---|---|")
    print(*rows, sep="\n", end="\n\n")


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
def server(folder: Path, ip: str = "127.0.0.1") -> Iterator[str]:
    """`server.py`'s address."""
    argv = [sys.executable, str(HERE / "server.py"), str(folder), ip]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


if __name__ == "__main__":
    main()
