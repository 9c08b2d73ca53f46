import numpy as np
import pandas as pd
import pytest

from numerai_predict import predictions
from numerai_predict.errors import InvalidPredictions

LIVE = pd.Index(["n1", "n2", "n3", "n4"], name="id")
VALUES = [0.0, 0.25, 0.5, 1.0]
GOOD = pd.DataFrame({"prediction": VALUES}, index=LIVE)


def values(*numbers, dtype=None):
    return GOOD.assign(prediction=pd.Series(numbers, LIVE, dtype=dtype))


@pytest.mark.parametrize(
    "frame",
    [
        GOOD,
        GOOD.rename(columns={"prediction": "probability"}),
        GOOD[::-1],
        GOOD.rename_axis(None),
        pd.concat([GOOD, GOOD.head(1).rename({"n1": "of_yesterday"})]),
        GOOD.astype("float32"),
        GOOD.astype(object),
        GOOD.astype("Float64"),
        GOOD.astype("category"),
        GOOD.astype("double[pyarrow]"),
        values(0, 1, 0, 1),
        values(-1e-9, 0.5, 0.5, 1 + 1e-9),
    ],
)
def test_what_numerai_accepts(frame):
    checked = predictions.check([frame], LIVE)
    assert sorted(checked.index) == list(LIVE)
    assert checked.index.name == "id"
    assert list(checked.columns) == list(frame.columns)


@pytest.mark.parametrize(
    "frame, error",
    [
        (GOOD.rename(columns={"prediction": "pred"}), "headers"),
        (GOOD.assign(era="X"), "headers"),
        (pd.concat([GOOD, GOOD], axis="columns"), "headers"),
        (GOOD[[]], "headers"),
        (GOOD.reset_index(), "headers"),
        (GOOD.reset_index(drop=True), "headers"),
        (GOOD.set_index([["X"] * 4, LIVE]), "headers"),
        (GOOD[:3], "ids"),
        (GOOD[:0], "ids"),
        (GOOD.rename({"n1": "of_yesterday"}), "ids"),
        (GOOD.rename({"n1": "n2"}), "ids"),
        (pd.concat([GOOD, GOOD[:1]]), "ids"),
        (pd.concat([GOOD, GOOD[:1].set_axis(pd.Index([None], name="id"))]), "ids"),
        (values(0, 0.5, np.nan, 1), "values"),
        (values(0, 0.5, None, 1, dtype="Float64"), "values"),
        (values(0, 0.5, np.inf, 1), "values"),
        (values(0, 0.5, 0.7, 1.01), "values"),
        (values(-0.01, 0.5, 0.7, 1), "values"),
        (values(0.5, 0.5, 0.5, 0.5), "values"),
        (values("low", "high", "low", "high"), "values"),
        (values(0, 1, 0, 1j), "values"),
    ],
)
def test_what_numerai_refuses(frame, error):
    with pytest.raises(InvalidPredictions, match=f"^invalid_submission_{error}: "):
        predictions.check([frame], LIVE)


def test_ids_in_a_column_are_refused_with_the_remedy():
    with pytest.raises(InvalidPredictions, match=r"use \.set_index\('id'\)"):
        predictions.check([GOOD.reset_index()], LIVE)


def test_every_era_needs_the_same_column():
    other = GOOD[2:].rename(columns={"prediction": "probability"})
    with pytest.raises(InvalidPredictions, match="^invalid_submission_headers: "):
        predictions.check([GOOD[:2], other], LIVE)


def test_the_file_holds_what_the_model_returned(tmp_path):
    frame = values(0.1, 0.2, 0.3, 1, dtype="float32")
    path = predictions.write(predictions.check([frame], LIVE), tmp_path)
    assert path.read_text() == "id,prediction\nn1,0.1\nn2,0.2\nn3,0.3\nn4,1.0\n"


def test_bad_predictions_exit_3_and_leave_no_file(run, pickled):
    def constant(live_features):
        return pd.DataFrame({"prediction": 0.5}, live_features.index)

    done = run(pickled(constant))
    assert done.code == 3
    assert "invalid_predictions: invalid_submission_values: " in done.log
    assert not done.has_csv
