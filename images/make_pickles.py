"""Pickles a model of one argument and one of two, as users do on their own machines, and live data.

    python make_pickles.py OUTPUT_DIR

They need nothing but pandas: whether an image loads what this very Python pickled is the question.
"""

import sys
from pathlib import Path

import cloudpickle
import pandas as pd

ROWS = 100


def one_argument(live_features: pd.DataFrame) -> pd.DataFrame:
    return live_features["feature_a"].rank(pct=True).to_frame("prediction")


def two_arguments(live_features: pd.DataFrame, live_benchmark_models: pd.DataFrame) -> pd.DataFrame:
    blend = one_argument(live_features)["prediction"] + live_benchmark_models["v52_lgbm"]
    return (blend / 2).to_frame("prediction")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    ids = pd.Index([f"n{number:015x}" for number in range(ROWS)], name="id")
    live = pd.DataFrame({"era": "X", "feature_a": [row % 5 for row in range(ROWS)]}, ids)
    live.to_parquet(folder / "live.parquet")
    ranks = [(row + 1) / ROWS for row in range(ROWS)]
    benchmarks = pd.DataFrame({"era": "X", "v52_lgbm": ranks}, ids)
    benchmarks.to_parquet(folder / "live_benchmark_models.parquet")
    for model in (one_argument, two_arguments):
        (folder / f"{model.__name__}.pkl").write_bytes(cloudpickle.dumps(model))


if __name__ == "__main__":
    main()
