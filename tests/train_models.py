"""Trains small models on invented data and pickles them, as users do on their own machines.

    python train_models.py OUTPUT_DIR

Beside each pickle lie the predictions that it makes here.
"""

import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
from catboost import CatBoostRegressor  # pants: no-infer-dep
from lightgbm import LGBMRegressor  # pants: no-infer-dep
from sklearn.ensemble import HistGradientBoostingRegressor  # pants: no-infer-dep
from sklearn.linear_model import Ridge  # pants: no-infer-dep
from sklearn.pipeline import make_pipeline  # pants: no-infer-dep
from sklearn.preprocessing import StandardScaler  # pants: no-infer-dep
from xgboost import XGBRegressor  # pants: no-infer-dep

FEATURES = [f"feature_{number}" for number in range(20)]


def one_argument(regressor):
    def predict(live_features):
        scores = pd.Series(regressor.predict(live_features[FEATURES]), live_features.index)
        return scores.rank(pct=True).to_frame("prediction")

    return predict


def two_arguments(regressor):
    def predict(live_features, live_benchmark_models):
        scores = pd.Series(regressor.predict(live_features[FEATURES]), live_features.index)
        blend = scores.rank(pct=True) + live_benchmark_models["v52_lgbm"].rank(pct=True)
        return (blend / 2).to_frame("prediction")

    return predict


def main() -> None:
    folder = Path(sys.argv[1])
    rng = np.random.default_rng(0)

    def features(rows: int) -> pd.DataFrame:
        return pd.DataFrame(rng.integers(0, 5, (rows, 20), dtype=np.int8), columns=FEATURES)

    train = features(500)
    target = train["feature_0"] / 4 - train["feature_1"] / 8 + rng.normal(scale=0.1, size=500)
    live = features(200).set_index(
        pd.Index([f"n{number:015x}" for number in range(200)], name="id")
    )
    live.insert(0, "era", "X")
    live.to_parquet(folder / "live.parquet")
    benchmarks = pd.DataFrame({"era": "X", "v52_lgbm": rng.random(200)}, live.index)
    benchmarks.to_parquet(folder / "live_benchmark_models.parquet")

    lightgbm = LGBMRegressor(n_estimators=20, verbose=-1).fit(train, target)
    xgboost = XGBRegressor(n_estimators=20).fit(train, target)
    # It would leave its training log in the current folder.
    catboost = CatBoostRegressor(iterations=20, allow_writing_files=False, silent=True)
    catboost.fit(train, target)
    linear = make_pipeline(StandardScaler(), Ridge()).fit(train, target)
    forest = HistGradientBoostingRegressor(max_iter=20).fit(train, target)
    for name, model, data in [
        ("lightgbm", one_argument(lightgbm), [live]),
        ("lightgbm-benchmarks", two_arguments(lightgbm), [live, benchmarks]),
        ("xgboost", one_argument(xgboost), [live]),
        ("xgboost-benchmarks", two_arguments(xgboost), [live, benchmarks]),
        ("catboost", one_argument(catboost), [live]),
        ("catboost-benchmarks", two_arguments(catboost), [live, benchmarks]),
        ("sklearn", one_argument(linear), [live]),
        ("sklearn-benchmarks", two_arguments(forest), [live, benchmarks]),
    ]:
        (folder / f"{name}.pkl").write_bytes(cloudpickle.dumps(model))
        model(*data).to_csv(folder / f"{name}.expected.csv")


if __name__ == "__main__":
    main()
