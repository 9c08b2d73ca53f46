"""Trains small models on invented data and pickles them, as users do in their notebooks.

A program that defines models, each marked as one, ends with `main()`:

    python PROGRAM OUTPUT_DIR MODEL...

Its code is that of `__main__` then, as a notebook's is, and becomes part of the pickles. Beside each
pickle lie the predictions that it makes here.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd

FEATURES = [f"feature_{number}" for number in range(20)]

# From features to scores of any scale, one a row.
Score = Callable[[pd.DataFrame], Any]


def model(library: str) -> Callable[[Any], Any]:
    """Marks a function of features and their target that trains a model and returns how it scores.

    `library` is the module that some images lack.
    """

    def mark(train: Any) -> Any:
        train.library = library
        return train

    return mark


def one_argument(score: Score):
    def predict(live_features):
        # Not ranks: rounding could make neighbours change places.
        scores = pd.Series(np.ravel(score(live_features[FEATURES])), live_features.index, float)
        return scores.sub(scores.min()).div(np.ptp(scores)).to_frame("prediction")

    return predict


def two_arguments(score: Score):
    predict_alone = one_argument(score)

    def predict(live_features, live_benchmark_models):
        blend = predict_alone(live_features)["prediction"] + live_benchmark_models["v52_lgbm"]
        return (blend / 2).to_frame("prediction")

    return predict


def main() -> None:
    # What wraps the scores is not of __main__.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    folder = Path(sys.argv[1])
    rng = np.random.default_rng(0)
    train, live = (
        pd.DataFrame(rng.integers(0, 5, (rows, len(FEATURES)), np.int8), columns=FEATURES)
        for rows in (500, 200)
    )
    target = train["feature_0"] / 4 - train["feature_1"] / 8 + rng.normal(scale=0.1, size=500)
    live.index = pd.Index([f"n{number:015x}" for number in range(200)], name="id")
    live.insert(0, "era", "X")
    live.to_parquet(folder / "live.parquet")
    benchmarks = pd.DataFrame({"era": "X", "v52_lgbm": rng.random(200)}, live.index)
    benchmarks.to_parquet(folder / "live_benchmark_models.parquet")

    for name in sys.argv[2:]:
        score: Score = getattr(sys.modules["__main__"], name)(train, target)
        for kind, predict, data in [
            ("", one_argument(score), [live]),
            ("-benchmarks", two_arguments(score), [live, benchmarks]),
        ]:
            (folder / f"{name}{kind}.pkl").write_bytes(cloudpickle.dumps(predict))
            predict(*data).to_csv(folder / f"{name}{kind}.expected.csv")
