"""What the pickles of real models tell of themselves, where their libraries are not installed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from numerai_predict import inspection


def pinned(package: str) -> str:
    """The version that the models were trained with."""
    lock = "".join(file.read_text() for file in Path("3rdparty/python/py311").iterdir())
    (version,) = re.findall(rf"^{package}==(\S+)", lock, re.MULTILINE)
    return version


@pytest.mark.parametrize("arguments", ["", "-benchmarks"], ids=["one", "two"])
@pytest.mark.parametrize(
    "model, library, package",
    [
        ("sklearn_pipeline", "scikit-learn", "scikit-learn"),
        ("xgboost", "xgboost", "xgboost(?:-cpu)?"),
    ],
)
def test_a_model_records_the_version_of_its_library(model, library, package, arguments, trained):
    found = inspect(trained / f"{model}{arguments}.pkl")
    assert found.versions[library] == pinned(package)


def test_lightgbm_records_the_version_of_its_format(trained):
    assert inspect(trained / "lightgbm.pkl").versions == {"lightgbm (model text)": "v4"}


def test_a_model_names_its_python_and_what_it_imports(trained):
    for path in sorted(trained.glob("*.pkl")):
        found = inspect(path)
        assert found.fault is None
        assert found.pythons == frozenset({sys.version_info[:2]})
        assert [name for name, _ in found.functions] == ["predict"]
        assert "pandas" in found.names
        assert {"catboost", "lightgbm", "xgboost", "sklearn"} & {
            module.partition(".")[0] for module in found.names
        }


def inspect(path: Path) -> inspection.Inspection:
    with path.open("rb") as file:
        return inspection.inspect(file, path.name)
