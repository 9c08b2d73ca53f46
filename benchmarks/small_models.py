"""Make small models that are all different, and live data with as many features as Numerai's set "medium".

python3 small_models.py FOLDER COUNT    writes FOLDER/0.pkl, FOLDER/1.pkl …, and data
"""

import sys
from pathlib import Path

import cloudpickle
import lightgbm
import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

ROWS, FEATURES = 5_000, 700
TRAIN_ROWS, TRAIN_FEATURES, TREES = 2_000, 100, 100
NAMES = [f"feature_{number:04}" for number in range(FEATURES)]


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    rng = np.random.default_rng(20)
    ids = pd.Index([f"n{number:016x}" for number in rng.permutation(ROWS)], name="id")
    live = features(rng, ROWS, NAMES).set_index(ids)
    live.insert(0, "era", "X")
    live.to_parquet(folder / "live.parquet")
    benchmarks = pd.DataFrame({"era": "X", "v52_lgbm_ender20": rng.random(ROWS)}, ids)
    benchmarks.to_parquet(folder / "live_benchmark_models.parquet")
    for number in range(count):
        model = trees(rng) if number % 2 else linear(rng)
        (folder / f"{number}.pkl").write_bytes(cloudpickle.dumps(model))


def features(rng: np.random.Generator, rows: int, names: list[str]) -> pd.DataFrame:
    """Of int8, in five bins."""
    bins = rng.integers(0, 5, size=(rows, len(names)), dtype=np.int8)
    return pd.DataFrame(bins, columns=names)


def training(rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    names = sorted(rng.choice(NAMES, TRAIN_FEATURES, replace=False))
    data = features(rng, TRAIN_ROWS, names)
    noise = rng.normal(size=TRAIN_ROWS)
    return data, data.to_numpy() @ rng.normal(scale=0.1, size=TRAIN_FEATURES) + noise


def linear(rng: np.random.Generator):
    data, target = training(rng)
    fitted, names = Ridge().fit(data, target), list(data)

    def predict(live_features):
        raw = pd.Series(fitted.predict(live_features[names]), live_features.index)
        return raw.rank(pct=True, method="first").to_frame("prediction")

    return predict


def trees(rng: np.random.Generator):
    parameters = {"num_leaves": 15, "learning_rate": 0.05, "num_threads": 1, "verbose": -1}
    data, target = training(rng)
    booster = lightgbm.train(parameters, lightgbm.Dataset(data, target), TREES)

    def predict(live_features, live_benchmark_models):
        raw = pd.Series(booster.predict(live_features[booster.feature_name()]), live_features.index)
        benchmark = live_benchmark_models["v52_lgbm_ender20"]
        blend = 0.9 * raw.rank(pct=True) + 0.1 * benchmark
        return blend.rank(pct=True, method="first").to_frame("prediction")

    return predict


if __name__ == "__main__":
    main()
