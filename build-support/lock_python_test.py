"""pyproject.toml, poetry.lock and the exports agree, and where they do not, `--check` says so."""

from __future__ import annotations

import fnmatch
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from packaging.requirements import Requirement
from poetry.core.version.markers import parse_marker
from poetry.factory import Factory

from lock_python import (
    Locked,
    also_below,
    layer_names,
    layers,
    lists,
    main,
    python_versions,
    resolve_of,
    settings,
    specifier,
)

INPUTS = ["poetry.lock", "pyproject.toml", "requirements.txt", "src/numerai_predict/images.py"]
PYTHONS = python_versions(Path())
LISTS = {"3rdparty/python/pythons.py", "3rdparty/python/pythons.toml", INPUTS[-1]}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A copy that a test may break."""
    (tmp_path / "src/numerai_predict").mkdir(parents=True)
    for name in INPUTS:
        shutil.copy(name, tmp_path / name)
    shutil.copytree("3rdparty/python", tmp_path / "3rdparty/python")
    return tmp_path


def complaints(root: Path) -> list[str]:
    with pytest.raises(SystemExit) as exit_:
        main(["--check", "--root", str(root)])
    return str(exit_.value.code).splitlines()


def edit(file: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, file.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1, f"{file.name} has nothing like {pattern}"
    file.write_text(text)


def test_this_repository_is_in_sync(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--check"])
    assert capsys.readouterr().out == "up to date\n"


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "complaint"),
    [
        (
            "pyproject.toml",
            r'"pandas<3"',
            '"pandas==2.3.1"',
            "poetry.lock does not match pyproject.toml",
        ),
        (
            "requirements.txt",
            r"^urllib3==.*?(?= )",
            "urllib3==2.0.0",
            "requirements.txt is stale",
        ),
        (
            "3rdparty/python/py311.txt",
            r"sha256:\w{4}",
            "sha256:0000",
            "3rdparty/python/py311.txt is stale",
        ),
        (
            "3rdparty/python/tools/uv.txt",
            "^uv==.*",
            "uv==0.1.0",
            "3rdparty/python/tools/uv.txt is stale",
        ),
        (
            "3rdparty/python/modules.toml",
            r"^pillow = .*\n",
            "",
            "src/numerai_predict/images.py is stale",
        ),
        ("3rdparty/python/pants.in", "==.*", "==2.16.0", "3rdparty/python/pants.txt is stale"),
        (
            "3rdparty/python/pants.txt",
            r"^toml==(.*) \\\n( +--hash.*\n)+",
            r"toml==\1\n",
            "3rdparty/python/pants.txt is stale",
        ),
        (
            "3rdparty/python/numerai-tools.in",
            "==.*",
            "==0.4.3",
            "3rdparty/python/numerai-tools.txt is stale",
        ),
    ],
)
def test_an_edit_is_reported(
    repo: Path, file: str, pattern: str, replacement: str, complaint: str
) -> None:
    edit(repo / file, pattern, replacement)
    assert complaints(repo) == [f"{complaint}: run 'make lock'"]


def test_a_hash_changed_in_the_lock_is_reported_for_each_export_that_has_it(repo: Path) -> None:
    edit(repo / "poetry.lock", r'(?s)(name = "urllib3".*?sha256:)\w{4}', r"\g<1>0000")
    stale = {line.split()[0] for line in complaints(repo)}
    assert {
        "requirements.txt",
        f"3rdparty/python/{resolve_of(PYTHONS[0])}.txt",
        f"3rdparty/python/{resolve_of(PYTHONS[-1])}/predictor.txt",
    } <= stale
    assert "3rdparty/python/py311/catboost.txt" not in stale


@pytest.mark.parametrize(
    "file",
    [
        "poetry.lock",
        "requirements.txt",
        "3rdparty/python/py311/catboost.txt",
        "3rdparty/python/numerai-tools.txt",
    ],
)
def test_a_missing_file_is_reported(repo: Path, file: str) -> None:
    (repo / file).unlink()
    assert complaints(repo) == [f"{file} is missing: run 'make lock'"]


def test_the_export_of_a_group_that_is_gone_is_reported(repo: Path) -> None:
    (repo / "3rdparty/python/tools/isort.txt").touch()
    expected = "3rdparty/python/tools/isort.txt is not needed any more: run 'make lock'"
    assert complaints(repo) == [expected]


def listing(repo: Path, pythons: list[str]) -> None:
    """Makes these the Python versions."""
    file = repo / "pyproject.toml"
    kind = '    "Programming Language :: Python ::'
    lines = "".join(f'{kind} {python}",\n' for python in pythons)
    edit(file, rf"^({kind} .*\n)+", lines)
    edit(file, "^requires-python = .*", f'requires-python = "{specifier(pythons)}"')


def exports_of(python: str) -> set[str]:
    folder = f"3rdparty/python/{resolve_of(python)}"
    layers = (layer for layers in layer_names(settings(Path())).values() for layer in layers)
    return {f"{folder}.txt", *(f"{folder}/{layer}.txt" for layer in layers)}


def test_a_new_python_version_needs_its_exports(repo: Path) -> None:
    listing(repo, [*PYTHONS, "3.99"])
    found = complaints(repo)
    assert "poetry.lock does not match pyproject.toml: run 'make lock'" in found
    missing = {line.split()[0] for line in found if "is missing" in line}
    assert missing == exports_of("3.99")
    assert LISTS <= {line.split()[0] for line in found if "is stale" in line}


def test_a_python_version_that_is_dropped_leaves_nothing(repo: Path) -> None:
    listing(repo, PYTHONS[:-1])
    found = complaints(repo)
    orphans = {line.split()[0] for line in found if "is not needed any more" in line}
    assert orphans == exports_of(PYTHONS[-1])
    assert LISTS <= {line.split()[0] for line in found if "is stale" in line}


@pytest.mark.parametrize("asked", ["", ">=3.11", ">=3.9,<3.99", "~3.11"])
def test_the_range_and_the_list_of_pythons_agree(repo: Path, asked: str) -> None:
    edit(repo / "pyproject.toml", "^requires-python = .*", f'requires-python = "{asked}"')
    listed = f'the classifiers say "{specifier(PYTHONS)}"'
    assert complaints(repo) == [f'pyproject.toml: requires-python is "{asked}", {listed}']


def test_what_the_list_becomes() -> None:
    """BUILD files, Pants and the predictor read the same versions, in their order of age."""
    layers = {"tabular": ["predictor", "arrow"], "full": ["torch"]}
    written = lists(["3.9", "3.10"], layers)
    assert written["3rdparty/python/pythons.py"].splitlines()[2:] == [
        'TABULAR_LAYERS = ("predictor", "arrow",)',
        'FULL_LAYERS = ("torch",)',
    ]
    assert [text.splitlines()[1] for path, text in written.items() if path.endswith(".py")] == [
        'PYTHONS = ("3.9", "3.10")',
        "IMAGES: tuple[tuple[int, int], ...] = ((3, 9), (3, 10))",
    ]
    options = tomlkit.parse(written["3rdparty/python/pythons.toml"]).unwrap()
    assert options == {
        "python": {
            "resolves": {
                "add": {"py39": "3rdparty/python/py39.txt", "py310": "3rdparty/python/py310.txt"}
            },
            "resolves_to_interpreter_constraints": {
                "add": {"py39": ["CPython==3.9.*"], "py310": ["CPython==3.10.*"]}
            },
        },
        "mypy": {"interpreter_constraints": ["CPython>=3.11,<3.11"]},
    }


def test_what_has_modules_of_other_names_is_locked() -> None:
    locked = tomlkit.parse(Path("poetry.lock").read_text()).unwrap()["package"]
    names = [package["name"] for package in locked]
    named = tomlkit.parse(Path("3rdparty/python/modules.toml").read_text()).unwrap()
    assert [pattern for pattern in named if not fnmatch.filter(names, pattern)] == []


def test_images_that_have_a_module() -> None:
    """Of each Python the smaller one, and of one platform only if the others have no wheel."""
    found: dict[str, str] = {}
    exec(Path("src/numerai_predict/images.py").read_text(), found)
    tabular = [python.replace(".", "_") for python in PYTHONS]
    full = " ".join(f"{python}_full" for python in tabular)
    modules: Any = found["MODULES"]
    assert modules["PIL"] == modules["google"] == " ".join(tabular)
    assert modules["torch"] == modules["tensorflow"] == full
    assert modules["treelite_runtime"] == full.replace("_full", "_full/amd64")
    assert "numpy_financial" not in modules


def test_what_the_oldest_python_gets_older_ones_get_too() -> None:
    """The plugins' tests run on 3.9, below the range of the lock, whatever that begins with."""
    for oldest in ("3.10", "3.11"):
        marker = parse_marker(f'python_version == "{oldest}"')
        for python, wanted in {"3.9": True, oldest: True, "3.12": False}.items():
            environment = {"python_version": python, "python_full_version": f"{python}.0"}
            assert also_below(marker, oldest).validate(environment) == wanted


@pytest.fixture(scope="module")
def locked() -> Locked:
    return Factory().create_poetry(Path(), disable_plugins=True).locker.locked_packages()


def in_layers(locked: Locked, python: str, machine: str, **changes: Any) -> dict[str, set[str]]:
    """Layer -> names of the packages that such an image has."""
    environment = {"platform_machine": machine, "python_version": python}
    return {
        layer: {
            requirement.name
            for requirement in map(Requirement, (line.split(" \\\n")[0] for line in lines))
            if requirement.marker is None or requirement.marker.evaluate(environment)
        }
        for layer, lines in layers(locked, python, {**settings(Path()), **changes}).items()
    }


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_each_package_is_in_one_layer(locked: Locked, python: str, machine: str) -> None:
    found = in_layers(locked, python, machine)
    assert max(Counter(name for names in found.values() for name in names).values()) == 1
    assert {"numpy", "scipy"} <= found["arrays"]
    assert "pandas" in found["predictor"]
    assert found["torch"] == {"torch"}
    # Of the two that hold the same modules.
    here, elsewhere = "tensorflow-cpu", "tensorflow"
    if machine != "x86_64":
        here, elsewhere = elsewhere, here
    assert found["tensorflow"] == {here}
    assert not set().union(*found.values()) & {elsewhere, "triton", "cmake"}


def test_a_package_is_in_the_first_layer_that_names_it(locked: Locked) -> None:
    named = {"tabular": {"a": ["pol*", "numpy"], "b": ["polars", "pyarrow"]}, "full": {"b": []}}
    found = in_layers(locked, "3.11", "x86_64", layers=named)
    assert {"polars", "polars-runtime-32", "numpy"} <= found["a"]
    assert found["b"] == {"pyarrow"}
    assert {"pandas", "urllib3"} <= found["predictor"]
    assert {"catboost", "numerapi"} <= found["tabular-rest"]
    assert {"torch", "grpcio", "nvidia-nvjitlink"} <= found["full-rest"]


def test_what_is_left_out_is_in_no_layer(locked: Locked) -> None:
    found = in_layers(locked, "3.11", "x86_64", **{"left-out": ["polars"], "superseded": {}})
    assert "triton" in found["full-rest"]
    assert found["polars"] == {"polars-runtime-32"}
    assert found["tensorflow"] == {"tensorflow", "tensorflow-cpu"}
