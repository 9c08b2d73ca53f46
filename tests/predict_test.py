"""Models that were trained and pickled elsewhere run in the image by the command that users know, and
its exit code says whose fault a failure is. On Docker; where none answers, on bubblewrap."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import cloudpickle
import pandas as pd
import pytest

Done = subprocess.CompletedProcess[str]


def raises(live_features):
    raise ArithmeticError("no luck today")


def above_one(live_features):
    return pd.DataFrame({"prediction": range(len(live_features))}, live_features.index)


def imports_what_is_not_there(live_features):
    import module_of_mine  # pants: no-infer-dep

    return module_of_mine.predict(live_features)


@pytest.mark.parametrize(
    "model, code, says",
    [
        (raises, 1, "model_error: the model raised ArithmeticError: no luck today"),
        (above_one, 3, "invalid_submission_values: .* between 0 and 1"),
        (imports_what_is_not_there, 6, "the model imports 'module_of_mine'"),
    ],
    ids=["model_error", "invalid_predictions", "environment_mismatch"],
)
def test_the_exit_code_and_a_message_say_what_is_wrong(model, code, says, folder, predict):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(model))
    done = predict(folder / "model.pkl")
    assert done.returncode == code, done.stderr
    assert re.search(says, done.stderr)
    assert not list(folder.glob("live_predictions-*.csv"))


def test_a_model_that_is_not_there_is_a_usage_error(folder, predict):
    done = predict(folder / "gone.pkl")
    assert done.returncode == 2
    assert f"--model {folder}/gone.pkl does not exist" in done.stderr


def test_predictions_that_vanish_with_the_container_are_said_to(folder, docker_image):
    def predict(*flags: str) -> str:
        argv = ["docker", "run", "--rm", f"--volume={folder}:{folder}", docker_image]
        argv += [f"--model={folder}/lightgbm.pkl", f"--dataset={folder}/live.parquet", *flags]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "will vanish with the container: it is in no mounted folder" in predict()
    assert "will vanish" not in predict(f"--output_dir={folder}")


class Storage(ThreadingHTTPServer):
    """Serves a folder, and takes forms as a presigned S3 POST does."""

    def __init__(self, folder: Path) -> None:
        self.uploads: list[list[tuple[str, bytes]]] = []
        super().__init__(("127.0.0.1", 0), partial(Requests, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}"


class Requests(SimpleHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        header = f"Content-Type: {self.headers['Content-Type']}\n\n"
        parts: Any = email.message_from_bytes(header.encode() + body).get_payload()
        fields = [
            (part.get_param("name", header="Content-Disposition"), part.get_payload(decode=True))
            for part in parts
        ]
        self.server.uploads.append(fields)  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def storage(trained: Path) -> Iterator[Storage]:
    with Storage(trained) as storage:
        threading.Thread(target=storage.serve_forever, daemon=True).start()
        yield storage
        storage.shutdown()


def test_presigned_addresses_bring_the_model_and_take_the_predictions(folder, predict, storage):
    for path in folder.iterdir():
        path.unlink()
    fields = {"key": "of/user 1.csv", "policy": "e30=", "x-amz-signature": "s3cret"}
    done = predict(
        f"{storage.url}/xgboost-benchmarks.pkl?signature=s3cret",
        f"--dataset={storage.url}/live.parquet?signature=s3cret",
        f"--benchmarks={storage.url}/live_benchmark_models.parquet?signature=s3cret",
        f"--post_url={storage.url}/bucket",
        f"--post_data={urlencode(fields)}",
    )
    assert done.returncode == 0, done.stderr
    (upload,) = storage.uploads
    (csv,) = folder.glob("live_predictions-*.csv")
    # S3 ignores what comes after the file.
    assert upload == [
        *((name, value.encode()) for name, value in fields.items()),
        ("file", csv.read_bytes()),
    ]
    assert "s3cret" not in done.stderr
