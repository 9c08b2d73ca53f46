"""What the tests share: a manifest, and an engine of real processes that outlive their submitter."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, TextIO

import pytest

from numerai_fleet.engines.base import Ended
from numerai_fleet.manifest import Model


class Processes:
    """Runs the shell command that a model's line has as `model`, `parallel` at a time.

    folder/NAME.N: its Nth try, made by the process itself; folder/NAME.N.code: how that ended. Until the
    former is there the process holds a lock: whoever starts it may be killed in between.
    """

    pause = 0.01

    def __init__(self, folder: Path, parallel: int) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.parallel = parallel

    def tries(self, name: str) -> int:
        self._lock().close()
        return len(list(self.folder.glob(f"{name}.[0-9]")))

    def running(self) -> set[str]:
        self._lock().close()
        tried = self.folder.glob("*.[0-9]")
        return {path.stem for path in tried if not Path(f"{path}.code").exists()}

    def room(self) -> int:
        return self.parallel - len(self.running())

    def start(self, models: Sequence[Model]) -> None:
        for model in models:
            path = self.folder / f"{model.name}.{self.tries(model.name)}"
            script = (
                f"touch {path}; exec < /dev/null; ({model.entry['model']}); echo $? > {path}.tmp"
            )
            script += f"; mv {path}.tmp {path}.code"
            env = {**os.environ, "TRY": path.suffix[1:]}
            with self._lock() as lock:
                subprocess.Popen(("setsid", "sh", "-c", script), env=env, stdin=lock)

    def ended(self) -> list[Ended]:
        """All of them, each time."""
        return [
            Ended(path.stem.partition(".")[0], int(path.read_text()), key=path.name)
            for path in sorted(self.folder.glob("*.code"))
        ]

    def stop(self) -> None:
        raise NotImplementedError

    def _lock(self) -> TextIO:
        """Held as long as any process has it open."""
        lock = (self.folder / ".lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock


class DockerApi(ThreadingHTTPServer):
    """Speaks as a Docker engine: what `answers` has for an address's end, else that there is none."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Any] = {"_ping": "OK", "version": {"ApiVersion": "1.41"}}


class _Handler(BaseHTTPRequestHandler):
    server: DockerApi

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        found = [each for end, each in self.server.answers.items() if path.endswith(f"/{end}")]
        (answer,) = found or [{"message": "there is none"}]
        body = answer() if callable(answer) else json.dumps(answer).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_DELETE = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def docker_api(monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerApi]:
    """The engine that DOCKER_HOST names."""
    with DockerApi() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Writes one of these models: name to `model`."""

    def write(models: dict[str, str]) -> Path:
        path = tmp_path / "round.jsonl"
        lines = ({"name": name, "python": "3.11", "model": it} for name, it in models.items())
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return path

    return write
