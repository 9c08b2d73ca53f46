"""What Swarm's engine makes of a manager's answers; tests/fleet_swarm_test.py has it run models."""

from __future__ import annotations

import json

import pytest

from numerai_fleet.engines import swarm as swarm_engine
from numerai_fleet.engines.base import EngineError
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


def test_stop_returns_once_nodes_that_live_have_ended_what_they_ran(
    docker_api, tmp_path, monkeypatch
):
    monkeypatch.setattr(Swarm, "pause", 0)
    docker_api.answers |= {"info": {"Swarm": {"ControlAvailable": True}}, "services": []}
    swarm = Swarm(tmp_path, Limits())
    spec = {"ContainerSpec": {"Labels": {MODEL: "a"}}}
    tasks = [{"NodeID": "n", "Spec": spec, "Status": {"State": "running"}}]
    looks = iter((tasks, tasks, []))
    docker_api.answers |= {
        "nodes": [{"ID": "n", "Status": {"State": "ready"}}],
        "tasks": lambda: json.dumps(next(looks)).encode(),
    }
    swarm.stop()
    assert not list(looks)

    docker_api.answers["tasks"] = tasks
    monkeypatch.setattr(swarm_engine, "PATIENCE", 0)
    with pytest.raises(EngineError, match="nodes of a do not say"):
        swarm.stop()
    docker_api.answers["nodes"] = [{"ID": "n", "Status": {"State": "down"}}]
    swarm.stop()
