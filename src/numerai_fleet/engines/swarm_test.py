"""What Swarm's engine makes of a manager's answers; tests/fleet_swarm_test.py has it run models."""

from __future__ import annotations

import json

from numerai_fleet.engines.docker import MODEL, RUN
from numerai_fleet.engines.local import Limits
from numerai_fleet.engines.swarm import Swarm

RESULT = {"entry": "a", "code": 0, "message": ""}


def test_what_ended_before_its_log_came_is_told_the_first_time(docker_api, tmp_path, monkeypatch):
    """Else whoever takes a run over would start it again."""
    monkeypatch.setattr(Swarm, "pause", 0)
    line = json.dumps(RESULT).encode()
    log = b"\1\0\0\0" + len(line).to_bytes(4, "big") + line
    logs = iter((b"", b"", log))
    docker_api.answers |= {"info": {"Swarm": {"ControlAvailable": True}}, "nodes": []}
    swarm = Swarm(tmp_path, Limits())
    status = {"State": "complete", "ContainerStatus": {"ExitCode": 0}}
    docker_api.answers |= {
        "services": [{"ID": "s", "Spec": {"Name": "n", "Labels": {RUN: swarm.run, MODEL: "a"}}}],
        "tasks": [{"ID": "t", "ServiceID": "s", "NodeID": "n", "Status": status}],
        "logs": lambda: next(logs),
    }
    assert swarm.running() == set()
    (ended,) = swarm.ended()
    assert (ended.name, ended.code, ended.result) == ("a", 0, {**RESULT, "output": None})
