"""What was trained on this machine's processor predicts on another one."""

from __future__ import annotations

import pandas as pd
import pytest
from predictions import expected, predicted


@pytest.mark.parametrize("model", ["lightgbm", "sklearn_pipeline-benchmarks"])
def test_a_model_predicts_on_another_processor(model, folder, predict_emulated):
    done = predict_emulated(folder / f"{model}.pkl")
    assert done.returncode == 0, done.stderr
    # Another processor may round otherwise.
    pd.testing.assert_frame_equal(predicted(folder), expected(folder, model), rtol=1e-3, atol=1e-6)
