"""Models of every library, trained by a plain interpreter of the image's minor version, predict in the
image what they predicted there; on another processor, too."""

from __future__ import annotations

import pandas as pd
import pytest
from predictions import expected, predicted

LIBRARIES = ("catboost", "lightgbm", "sklearn", "xgboost")


@pytest.mark.parametrize("arguments", ["", "-benchmarks"], ids=["one", "two"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_model_predicts_what_it_did_where_it_was_trained(library, arguments, folder, predict):
    done = predict(folder / f"{library}{arguments}.pkl")
    assert done.returncode == 0, done.stderr
    predictions = predicted(folder)
    pd.testing.assert_frame_equal(predictions, expected(folder, f"{library}{arguments}"))
    assert len(predictions) == 200
    assert predictions["prediction"].between(0, 1).all()
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("model", ["lightgbm", "sklearn-benchmarks"])
def test_a_model_predicts_on_another_processor(model, folder, predict_emulated):
    done = predict_emulated(folder / f"{model}.pkl")
    assert done.returncode == 0, done.stderr
    # Ranks: where a processor rounds otherwise, two neighbours may change places.
    pd.testing.assert_frame_equal(predicted(folder), expected(folder, model), atol=0.02)
