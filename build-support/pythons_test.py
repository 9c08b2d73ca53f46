"""pyproject.toml's list of Python versions is what everything else goes by."""

from __future__ import annotations

import builtins
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lock_python import OPTIONS, PRELUDE, python_versions, resolve_of

PYTHONS = python_versions(Path())
PRELUDES = [PRELUDE, "build-support/prelude.py"]
# Debian's Python, in whose image and resolve what is needed once only runs.
SPECIAL = "3.11"


def make(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    argv = ["make", "--silent", *arguments]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True)


class BuildFile(dict[str, Any]):
    """A BUILD file's names: every function that it calls records the target, and makes nothing."""

    def __init__(self, folder: str) -> None:
        self.targets: dict[str, str] = {}
        for file in [*PRELUDES, f"{folder}/BUILD"]:
            exec(compile(Path(file).read_text(), file, "exec"), self)

    def __missing__(self, function: str) -> Any:
        if hasattr(builtins, function):
            raise KeyError(function)

        def target(*_: Any, name: str = "", **__: Any) -> None:
            self.targets[name] = function

        return target

    def pythons(self, function: str, suffix: str = "") -> list[str]:
        """Of the targets that are called py3XX and this suffix."""
        matches = (re.fullmatch(rf"py3(\d+){suffix}", name) for name in self.named(function))
        return sorted((f"3.{match[1]}" for match in matches if match), key=PYTHONS.index)

    def named(self, function: str) -> list[str]:
        return [name for name, used in self.targets.items() if used == function]


@pytest.mark.parametrize("kind, flavour", [("build", ""), ("build", "_full"), ("test", "")])
def test_make_has_a_target_for_each(kind: str, flavour: str) -> None:
    listed = [line.split()[0] for line in make("help").stdout.splitlines()]
    expected = [f"{kind}_{python.replace('.', '_')}{flavour}" for python in PYTHONS]
    assert [name for name in listed if re.fullmatch(rf"{kind}_\d_\d+{flavour}", name)] == expected
    for name, python in zip(expected, PYTHONS, strict=True):
        image = resolve_of(python) + flavour.replace("_", "-")
        assert f"images:{image} " in make("--dry-run", name).stdout.replace("\n", " ")


def test_make_build_builds_all() -> None:
    planned = make("--dry-run", "build").stdout
    assert re.findall(r"package images:(\w+)", planned) == [
        resolve_of(python) for python in PYTHONS
    ]


def test_make_names_what_there_is_instead_of_another_python() -> None:
    done = make("test_3_9")
    complaint, _ = done.stderr.splitlines()
    assert done.returncode == 2 and not done.stdout
    assert complaint.startswith("There is no test_3_9, only: build_3_")
    assert complaint.endswith(f"test_{PYTHONS[-1].replace('.', '_')}")


def test_a_line_more_is_a_target_more(tmp_path: Path) -> None:
    shutil.copy("Makefile", tmp_path)
    listed = Path("pyproject.toml").read_text()
    newest = f'"Programming Language :: Python :: {PYTHONS[-1]}",'
    newer = newest.replace(PYTHONS[-1], "3.99")
    (tmp_path / "pyproject.toml").write_text(listed.replace(newest, f"{newest}\n    {newer}"))
    assert json.loads(make("pythons", folder=tmp_path).stdout) == [*PYTHONS, "3.99"]
    assert "images:py399" in make("--dry-run", "build_3_99", folder=tmp_path).stdout


def test_make_tells_workflows_which_pythons_there_are() -> None:
    assert json.loads(make("pythons").stdout) == PYTHONS
    for workflow in ("test", "publish"):
        text = Path(f".github/workflows/{workflow}.yml").read_text()
        assert "python: ${{ fromJSON(needs.pythons.outputs.list) }}" in text


@pytest.mark.parametrize("tag", ["latest", "stable"])
def test_make_pushes_each_in_both_flavours(tag: str) -> None:
    listed = [line.split()[0] for line in make("help").stdout.splitlines()]
    expected = [f"push_{tag}_{python.replace('.', '_')}" for python in PYTHONS]
    assert [name for name in listed if name.startswith(f"push_{tag}")] == [f"push_{tag}", *expected]
    for name, python in zip(expected, PYTHONS, strict=True):
        image = resolve_of(python)
        assert make("--dry-run", name).stdout.endswith(
            f"{tag} images:{image} images:{image}-full\n"
        )


@pytest.mark.parametrize(
    ("folder", "function", "suffix"),
    [
        ("3rdparty/python", "python_requirements", ""),
        ("images", "oci_image", ""),
        ("tests", "python_tests", ""),
        ("src/numerai_predict", "pex_binary", ""),
        ("src/numerai_predict", "python_sources", "-sources"),
        ("src/numerai_predict", "python_tests", "-tests"),
    ],
)
def test_each_has_its_targets(folder: str, function: str, suffix: str) -> None:
    assert BuildFile(folder).pythons(function, suffix) == PYTHONS


def test_no_other_file_lists_them() -> None:
    named = re.compile(r"\bpy3(\d\d)\b|\b[a-z]*3[._](\d\d)\b")
    files = [Path("Makefile"), *Path(".github/workflows").glob("*"), *Path().rglob("BUILD")]
    found = {
        f"{file}:{number}: {line}"
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), 1)
        for match in named.finditer(line)
        if not line.lstrip().startswith("#") and f"3.{match[1] or match[2]}" != SPECIAL
    }
    assert len(files) > 10
    assert found == set()


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (None, "+['{}']"),
        ("ci.toml", "+['ci.toml', '{}']"),
        ("+['ci.toml']", "+['ci.toml'],+['{}']"),
        ("['pants.toml', 'ci.toml']", "['pants.toml', 'ci.toml', '{}']"),
        ("+['{}']", "+['{}']"),
    ],
)
def test_pants_reads_the_resolves_besides_the_users_own_options(
    own: str | None, expected: str
) -> None:
    env = {} if own is None else {"PANTS_CONFIG_FILES": own.format(OPTIONS)}
    script = 'set -euo pipefail; source .pants.bootstrap; echo "$PANTS_CONFIG_FILES"'
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True)
    assert done.stdout.rstrip() == expected.format(OPTIONS), done.stderr
