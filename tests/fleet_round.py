"""A round of models with faults of each kind, and the server that they are fetched from and upload to."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

FLEET = (sys.executable, str(Path("numerai-fleet.pex").absolute()))
SECRET = "X-Amz-Signature=0123456789abcdef"
CODES = {
    **{f"good-{number}": 0 for number in range(4)},
    **{"raises": 1, "not-here": 2, "invalid": 3, "hog": 4, "hangs": 4, "segfault": 5, "misses": 6},
    **{"gone": 7, "refused": 8, "heals": 0, "meddles": 1, "nosy": 0},
}


def good(live_features):
    ranks = live_features["feature_a"].rank(pct=True, method="first")
    return ranks.to_frame("prediction")


def raises(live_features):
    raise ArithmeticError("no luck today")


def invalid(live_features):
    return good(live_features) + 1


def hog(live_features):
    return bytearray(2 << 30)


def hangs(live_features):
    time.sleep(1000)


def segfault(live_features):
    ctypes.string_at(0)


def misses(live_features):
    import module_of_mine  # pants: no-infer-dep

    return module_of_mine.predict(live_features)


def meddles(live_features):
    """Tries to change the data that others get."""
    for line in open("/proc/self/mountinfo"):
        path = line.split()[4]
        if path.endswith(".parquet"):
            with open(path, "r+b") as file:
                file.write(b"mine")
    return good(live_features)


def nosy(live_features):
    """Looks for the secrets of its own run, and of others."""
    secret = bytes(reversed(b"-zmA-X"))  # its pickle is there as well
    for folder in ("/run", "/out", "/in", "/tmp", "/proc"):
        # Unlike rglob, it does not mind that processes and network devices come and go.
        for place, _, names in os.walk(folder):
            for path in (Path(place, name) for name in names):
                try:
                    found = path.is_file() and secret in path.read_bytes()
                except OSError:
                    continue
                if found:
                    raise ArithmeticError(path)
    return good(live_features)


class Server(ThreadingHTTPServer):
    """Serves a folder by GET, what is below /held once `released` is set; takes uploads by POST to
    /ok, or to /heals the second time."""

    daemon_threads = True

    def __init__(self, folder: Path, address: str) -> None:
        super().__init__((address, 0), Handler)
        self.folder = folder
        self.seen: Counter[str] = Counter()
        self.uploads: dict[str, bytes] = {}
        self.released = threading.Event()
        self.url = f"http://{address}:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        file = self.server.folder / Path(path).name
        body = file.read_bytes() if file.is_file() else b""
        tag = f'"{zlib.crc32(body)}"'
        if self.headers["If-None-Match"] == tag:
            self._answer(304)
            return
        self.server.seen[f"GET {path}"] += 1
        if path.startswith("/held/"):
            self.server.released.wait()
        self._answer(200 if body else 404, body, tag)

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen[f"POST {path}"] += 1
        heals = path.startswith("/ok") or self.server.seen[f"POST {path}"] > 1
        taken = heals and path != "/refused"
        if taken:
            self.server.uploads[Path(path).name] = body
        self._answer(204 if taken else 403)

    def _answer(self, status: int, body: bytes = b"", tag: str = "") -> None:
        self.send_response(status)
        if tag:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def write_models(folder: Path) -> None:
    """Models and data, to a new folder."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    ids = pd.Index([f"n{number:08x}" for number in range(200)], name="id")
    live = pd.DataFrame({"era": "X", "feature_a": rng.random(200)}, ids)
    live.to_parquet(folder / "live.parquet")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    for model in (good, raises, invalid, hog, hangs, segfault, misses, meddles, nosy):
        (folder / f"{model.__name__}.pkl").write_bytes(cloudpickle.dumps(model))


@contextmanager
def serving(folder: Path, address: str) -> Iterator[Server]:
    """Serves models and data from a new folder."""
    write_models(folder)
    server = Server(folder, address)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def line(server: Server, image: str, name: str, code: int, uploads: bool) -> dict[str, Any]:
    """What the manifest says of a model."""
    kind = name.partition("-")[0]
    model = {"heals": "good", "refused": "good", "held": "held/good"}.get(kind, kind)
    entry: dict[str, Any] = {
        "name": name,
        "image": image,
        "model": f"{server.url}/{model}.pkl?{SECRET}",
        "dataset": f"{server.url}/live.parquet?{SECRET}-{name}",
        # No model takes them.
        "benchmarks": f"{server.url}/gone.parquet",
        "limits": {"memory": "1GB", "timeout": "300" if name != "hangs" else "3"},
    }
    if name == "not-here":
        entry["model"] = "/gone/model.pkl"
    if uploads:
        path = f"ok/{name}" if code == 0 and name != "heals" else name
        entry |= {"post_url": f"{server.url}/{path}", "post_data": f"key=a&policy={SECRET}"}
    return entry


def written(folder: Path, lines: list[dict[str, Any]]) -> Path:
    path = folder / "round.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def fleet(*args: object, **env: str) -> subprocess.Popen[str]:
    argv = (*FLEET, *map(str, args))
    env = {**os.environ, **env}
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def described(names: Callable[[], list[str]], inspect: Callable[..., str]) -> str:
    """What an engine says of what a dead submitter left. What that had asked to remove goes nevertheless,
    and may be gone between the two questions."""
    for _ in range(5):
        left = names()
        assert left
        try:
            return inspect(*left)
        except AssertionError as error:
            fault = error
    raise fault


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """A run's rows, by models' names."""
    return {row["name"]: row for row in pq.read_table(folder / "results.parquet").to_pylist()}


def each_ended_once(folder: Path, codes: Mapping[str, int], server: Server, log: str) -> set[str]:
    """Asserts it of a run with two retries whose submitter and node died; returns whom the node took."""
    rows = results(folder)
    assert {name: row["code"] for name, row in rows.items()} == codes, log
    lost = set(re.findall("^(\\S+): lost, is tried again", log, re.MULTILINE))
    assert lost, log
    # What heals is refused once, whether or not it was lost.
    tries = {name: row["tries"] for name, row in rows.items() if name != "heals"}
    assert tries == {
        name: 3 if name in ("gone", "refused") else 1 + (name in lost) for name in tries
    }
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    ended = [event["key"] for event in events if event["event"] == "ended"]
    assert len(ended) == len(set(ended)) == sum(row["tries"] for row in rows.values())
    for name, row in rows.items():
        assert row["message"] or not row["code"], name
        was_uploaded = row["code"] == 0 and row["output"] is None
        if was_uploaded and name not in lost | {"heals"}:
            assert server.seen[f"POST /ok/{name}"] == 1, name
    return lost
