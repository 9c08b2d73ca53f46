import pandas as pd
import pytest

from numerai_predict import predictions
from numerai_predict.errors import InvalidPredictions, ModelError

LIVE = pd.Index(["n1", "n2", "n3", "n4"], name="id")
GOOD = pd.DataFrame({"prediction": [0.0, 0.25, 0.5, 1.0]}, index=LIVE)
TEXT = b"id,prediction\nn1,0.0\nn2,0.25\nn3,0.5\nn4,1.0\n"


class Unwritable:
    def __str__(self):
        raise ArithmeticError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("frame", [GOOD, GOOD.rename_axis(None), GOOD.astype("float32")])
def test_a_frame_becomes_a_line_per_row(frame):
    assert predictions.to_csv([frame], LIVE) == TEXT


def test_eras_follow_each_other():
    assert predictions.to_csv([GOOD[:1], GOOD[1:]], LIVE) == TEXT


@pytest.mark.parametrize(
    "parts, says",
    [
        ([GOOD.reset_index()], r"use \.set_index\('id'\)"),
        ([GOOD.reset_index(drop=True)], "the index must hold the ids of the live data; it begins"),
        ([GOOD.set_index([["X"] * 4, LIVE])], "the index must be the ids alone"),
        ([GOOD[:2], GOOD[2:].rename(columns={"prediction": "p"})], "the same for every era"),
    ],
)
def test_what_the_text_could_not_show_is_refused(parts, says):
    with pytest.raises(InvalidPredictions, match=f"^invalid_submission_headers: .*{says}"):
        predictions.to_csv(parts, LIVE)


def test_a_frame_that_cannot_be_written_is_the_models_fault():
    frame = GOOD.assign(prediction=[Unwritable()] * 4)
    with pytest.raises(ModelError, match="cannot be written as CSV: ArithmeticError"):
        predictions.to_csv([frame], LIVE)
