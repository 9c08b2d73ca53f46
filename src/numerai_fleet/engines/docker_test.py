"""What Docker's engine makes of a daemon's answers; tests/fleet_test.py has it run models."""

from __future__ import annotations

import pytest

from numerai_fleet.engines.docker import MODEL, Docker
from numerai_fleet.engines.local import Limits


@pytest.mark.parametrize("state", ["exited", "removing"])
def test_what_a_dead_submitter_still_had_removed_is_no_fault(docker_api, tmp_path, state):
    """It is listed, and gone when it is asked about."""
    docker_api.answers |= {"info": {"NCPU": 2}}
    engine = Docker(tmp_path, Limits(), None)
    listed = {"Id": "c", "State": state, "Labels": {MODEL: "a"}}
    docker_api.answers["containers/json"] = [listed]
    assert engine.running() == set()
    assert engine.ended() == []
    assert engine.room() > 0
    engine.stop()
