"""The programs start from what this repository locks, whatever the working directory."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from pants.engine.process import InteractiveProcess
from pants.testutil.rule_runner import RuleRunner, mock_console

from oci.testutil.image_runner import image_runner
from oci.util_rules.release_tools import PROGRAMS, ReleaseTools

LOCK = "3rdparty/debian/trixie.lock"
VERSIONS = {
    package["name"]: package["version"].partition("-")[0].partition("+")[0]
    for package in json.loads(Path(LOCK).read_text())["packages"]
}
# Debian's cosign does not know its version.
SAYS = {**VERSIONS, "cosign": "GitVersion:"}


@pytest.fixture(scope="module")
def rule_runner() -> RuleRunner:
    runner = image_runner()
    runner.write_files({LOCK: Path(LOCK).read_text()})
    return runner


def run(rule_runner: RuleRunner, script: str) -> int:
    tools = rule_runner.request(ReleaseTools, [])
    functions = (
        f'{name}() {{ {shlex.join(argv)} "$@"; }}\n' for name, argv in tools.programs.items()
    )
    process = InteractiveProcess(
        ("/bin/sh", "-ec", "".join(functions) + script), input_digest=tools.digest
    )
    with mock_console(rule_runner.options_bootstrapper):
        return rule_runner.run_interactive_process(process).exit_code


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_starts(rule_runner: RuleRunner, tmp_path: Path, name: str) -> None:
    said = tmp_path / "said"
    option = "--version" if name == "skopeo" else "version"
    assert run(rule_runner, f"cd /; {name} {option} > {said}") == 0
    assert SAYS[name] in said.read_text()


def test_it_takes_no_library_of_this_machine(rule_runner: RuleRunner, tmp_path: Path) -> None:
    said = tmp_path / "said"
    for name in PROGRAMS:
        # The loader lists what it would load.
        assert run(rule_runner, f"LD_TRACE_LOADED_OBJECTS=1 {name} >> {said}") == 0
    lines = [line for line in said.read_text().splitlines() if "linux-vdso" not in line]
    assert len(lines) > len(PROGRAMS)
    assert all("/release-tools/" in line for line in lines), lines
