"""What Swarm's engine makes of a manager's answers; tests/fleet_swarm_test.py has it run models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from numerai_fleet.engines.docker import MODEL, RUN
from numerai_fleet.engines.local import Limits
from numerai_fleet.engines.swarm import Swarm

RESULT = {"entry": "a", "code": 0, "message": ""}


class Api(ThreadingHTTPServer):
    """A manager with one model, whose task is complete, and whose log comes when it is asked for again."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.run = ""
        self.logs = 0


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        labels = {RUN: self.server.run, MODEL: "a"}
        status = {"State": "complete", "ContainerStatus": {"ExitCode": 0}}
        answers: dict[str, Any] = {
            "version": {"ApiVersion": "1.41"},
            "info": {"Swarm": {"ControlAvailable": True}},
            "nodes": [],
            "services": [{"ID": "s", "Spec": {"Name": "n", "Labels": labels}}],
            "tasks": [{"ID": "t", "ServiceID": "s", "NodeID": "n", "Status": status}],
        }
        what = self.path.partition("?")[0].rpartition("/")[2]
        body = json.dumps(answers.get(what)).encode()
        if what == "logs":
            self.server.logs += 1
            line = json.dumps(RESULT).encode() if self.server.logs > 2 else b""
            body = b"\1\0\0\0" + len(line).to_bytes(4, "big") + line
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(Swarm, "pause", 0)
    with Api() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


def test_what_ended_before_its_log_came_is_told_the_first_time(api, tmp_path):
    """Else whoever takes a run over would start it again."""
    swarm = Swarm(tmp_path, Limits())
    api.run = swarm.run
    assert swarm.running() == set()
    (ended,) = swarm.ended()
    assert (ended.name, ended.code, ended.result) == ("a", 0, {**RESULT, "output": None})
    assert api.logs == 3
