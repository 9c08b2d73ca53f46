"""Models of every library, trained by a plain interpreter of the image's minor version, predict in the
image what they predicted there.

A full image is tested with the models of what the tabular image has not.
"""

from __future__ import annotations

import platform
from itertools import cycle
from types import ModuleType

import full
import pandas as pd
import pytest
import tabular
from conftest import FLAVOUR, MINOR
from predictions import expected, predicted

from numerai_predict.images import MODULES

# How MODULES calls this image.
IMAGE = MINOR.replace(".", "_") + (f"_{FLAVOUR}" if FLAVOUR else "")
ON_THIS_MACHINE = {"x86_64": "/amd64"}.get(platform.machine(), "")


def models(program: ModuleType) -> list[str]:
    """The names of the program's models of what this image has and no smaller one."""
    libraries = {name: getattr(value, "library", None) for name, value in vars(program).items()}
    return [
        name
        for name, library in libraries.items()
        if library and {IMAGE, IMAGE + ON_THIS_MACHINE} & set(MODULES[library].split())
    ]


MODELS = [(program.__name__, name) for program in (tabular, full) for name in models(program)]
# Every other model has two arguments.
CASES = [(*model, kind) for model, kind in zip(MODELS, cycle(["", "-benchmarks"]))]

# What these packages of numerai-predict say of each other.
USUAL = (
    "TypedStorage is deprecated",
    # joblib 1.3 asks a program that the image has not.
    "Could not find the number of physical cores",
)


@pytest.fixture
def trained(program, model, train):
    return train(program, model)


@pytest.mark.parametrize(
    "program, model, kind", [pytest.param(*case, id=case[1] + case[2]) for case in CASES]
)
def test_a_model_predicts_what_it_did_where_it_was_trained(model, kind, folder, predict):
    done = predict(folder / f"{model}{kind}.pkl")
    assert done.returncode == 0, done.stderr
    predictions = predicted(folder)
    pd.testing.assert_frame_equal(predictions, expected(folder, f"{model}{kind}"))
    assert len(predictions) == 200
    assert predictions["prediction"].between(0, 1).all()
    assert predictions["prediction"].std() > 0.01
    warnings = [line for line in done.stderr.splitlines() if "Warning" in line]
    assert not [line for line in warnings if not any(usual in line for usual in USUAL)]
