"""What the tests share: small live data, an HTTP server with faults, runs of the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest

from numerai_predict import transfer

ROWS = 40

# Also what `sys.path` gained in this process, as under Pants.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Retries in this process follow each other at once."""
    monkeypatch.setattr(transfer, "BACKOFF", 0)


@pytest.fixture
def live(tmp_path) -> pd.DataFrame:
    """Live data of 40 rows, also in `tmp_path/live.parquet`, as is live_benchmark_models.parquet.

    The benchmark models' rows are in another order, and are more.
    """
    rng = np.random.default_rng(1)
    ids = pd.Index([f"n{number:016x}" for number in range(ROWS)], name="id")
    frame = pd.DataFrame(
        rng.integers(0, 5, (ROWS, 3), dtype=np.int8), ids, ["feature_a", "feature_b", "feature_c"]
    )
    frame.insert(0, "era", "X")
    frame.to_parquet(tmp_path / "live.parquet")

    more = ids.append(pd.Index(["n_of_yesterday"], name="id"))[::-1]
    benchmarks = pd.DataFrame({"era": "X", "v52_lgbm": np.linspace(1, 0, ROWS + 1)}, more)
    benchmarks.to_parquet(tmp_path / "live_benchmark_models.parquet")
    return frame


@pytest.fixture
def pickled(tmp_path, request) -> Callable[[object], Path]:
    """Pickles a model as users do: with cloudpickle, its code by value."""

    def dump(model: object) -> Path:
        cloudpickle.register_pickle_by_value(request.module)
        path = tmp_path / "model.pkl"
        path.write_bytes(cloudpickle.dumps(model))
        return path

    return dump


@dataclass
class Run:
    code: int
    log: str  # standard error
    printed: str  # standard output
    output_dir: Path

    @property
    def csv(self) -> Path:
        (path,) = self.output_dir.glob("live_predictions-*.csv")
        return path

    @property
    def has_csv(self) -> bool:
        return bool(list(self.output_dir.glob("live_predictions-*.csv")))

    @property
    def result(self) -> dict[str, Any]:
        """What `--result` says."""
        return json.loads((self.output_dir / "result.json").read_text())


@pytest.fixture
def run(tmp_path, live) -> Callable[..., Run]:
    """Runs the command on the local live data; later flags win."""
    output_dir = tmp_path / "out"
    output_dir.mkdir()

    def run(model: object, *flags: object, env: dict[str, str] | None = None, input="") -> Run:
        local = [f"--dataset={tmp_path}/live.parquet", f"--output_dir={output_dir}"]
        local += [f"--benchmarks={tmp_path}/live_benchmark_models.parquet"]
        local += [f"--result={output_dir}/result.json", f"--model={model}"]
        done = subprocess.run(
            command(*local, *flags),
            env={**ENVIRONMENT, **(env or {})},
            input=input,
            capture_output=True,
            text=True,
            timeout=100,
        )
        return Run(done.returncode, done.stderr, done.stdout, output_dir)

    return run


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0  # bytes that are announced, but never sent


@dataclass
class Received:
    method: str
    path: str  # with the query
    headers: dict[str, str]
    body: bytes


class Server:
    """An HTTP server on a free port that gives, per path, prepared answers in turn.

    The last answer of a path stays; unknown paths are answered as S3 does.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.received: list[Received] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.handle(self)

            do_POST = do_GET

            def log_message(self, *args) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def on(self, path: str, *answers: Answer) -> str:
        self.answers[path] = list(answers)
        return self.url + path

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        headers = dict(request.headers.items())
        self.received.append(Received(request.command, request.path, headers, body))
        answers = self.answers.get(request.path.partition("?")[0], [s3_error(404, "NoSuchKey")])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        known = headers.get("If-None-Match"), headers.get("If-Modified-Since")
        if answer.headers.get("ETag", answer.headers.get("Last-Modified", ())) in known:
            answer = Answer(status=304)
        request.send_response(answer.status)
        for name, value in answer.headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(answer.body) + answer.cut))
        request.end_headers()
        request.wfile.write(answer.body)


def s3_error(status: int, code: str, message: str = "") -> Answer:
    """What S3 answers, with the signed request quoted in it."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message><Signed>s3cret</Signed></Error>"
    return Answer(body.encode(), status, {"Content-Type": "application/xml"})


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


@pytest.fixture
def closed_port() -> str:
    """An address that nobody listens at."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as unused:
        return f"http://127.0.0.1:{unused.server_port}"


def command(*flags: object) -> list[str]:
    """The command in a process of its own."""
    return [sys.executable, "-m", "numerai_predict", *map(str, flags)]
