"""Make something to run: a trained LightGBM model and live data at the real size.

    python3 examples/make_model.py OUTPUT_DIR

Needs lightgbm, pandas, pyarrow and cloudpickle: run it inside the image, with the very library
versions that will load the model again. The same arguments give the same data and predictions.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import cloudpickle
import lightgbm
import numpy as np
import pandas as pd

# The size of Numerai's live data, version 5.2.
LIVE_ROWS = 6_720
FEATURES = 2_748
BENCHMARKS = ("v52_lgbm_ender20", "v52_lgbm_cyrusd20", "v52_lgbm_teager2b20", "v52_lgbm_ct_blend")
TARGETS = ("target", "target_cyrusd_20", "target_cyrusd_60", "target_teager2b_20")

TRAIN_ROWS = 5_000
TRAIN_FEATURES = 300
TREES = 300

# Numerai's feature names have three invented words; 15 × 14 × 14 of them are enough.
FIRST = "airy agile bardic calm dapper eerie faunal gusty hidden ionic jovial lucid mossy polar wry"
SECOND = "amber bold candid dusky early frosty gentle humid ivory jaded keen lunar mellow noble"
THIRD = "acorn badger cedar dune ember falcon geyser heron islet jasper kelp lagoon maple nebula"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train an example model and make live data.")
    parser.add_argument("output_dir", type=Path, help="folder for the files, made if absent")
    parser.add_argument("--seed", type=int, default=20, help="of everything (default: %(default)s)")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    started = time.monotonic()

    def progress(text: str) -> None:
        print(f"[{time.monotonic() - started:4.1f} s] {text}", flush=True)

    live = make_live_data(rng)
    live.to_parquet(args.output_dir / "live.parquet")
    progress(f"live.parquet: {len(live):,} rows, {FEATURES:,} features")

    benchmarks = make_benchmarks(rng, live)
    benchmarks.to_parquet(args.output_dir / "live_benchmark_models.parquet")
    progress(f"live_benchmark_models.parquet: {len(BENCHMARKS)} models")

    names = feature_names()[:: FEATURES // TRAIN_FEATURES][:TRAIN_FEATURES]
    booster = train(rng, names, args.seed)
    progress(f"trained {TREES} trees on {TRAIN_ROWS:,} rows, {TRAIN_FEATURES} features")

    with open(args.output_dir / "model.pkl", "wb") as file:
        cloudpickle.dump(make_predict(booster), file)
    progress(f"model.pkl: predict(live_features, live_benchmark_models), in {args.output_dir}")


def feature_names() -> list[str]:
    """The 2,748 feature names, always in the same order."""
    words = itertools.product(FIRST.split(), SECOND.split(), THIRD.split())
    return ["feature_" + "_".join(three) for three in itertools.islice(words, FEATURES)]


def make_features(rng: np.random.Generator, rows: int, names: list[str]) -> pd.DataFrame:
    """Features as Numerai has them: int8, five bins 0 to 4."""
    # One two-dimensional array, so that pandas holds it as a single block.
    bins = rng.integers(0, 5, size=(rows, len(names)), dtype=np.int8)
    return pd.DataFrame(bins, columns=names)


def make_live_data(rng: np.random.Generator) -> pd.DataFrame:
    """Live data: index `id`; era, data_type, the features, and targets that nobody knows yet."""
    ids = pd.Index([f"n{number:016x}" for number in unique_numbers(rng, LIVE_ROWS)], name="id")
    features = make_features(rng, LIVE_ROWS, feature_names()).set_index(ids)
    labels = pd.DataFrame({"era": "X", "data_type": "live"}, index=ids)
    targets = pd.DataFrame(np.nan, index=ids, columns=list(TARGETS), dtype="float32")
    return pd.concat([labels, features, targets], axis="columns")


def unique_numbers(rng: np.random.Generator, count: int) -> np.ndarray:
    """Different 64-bit numbers, in random order."""
    numbers = np.unique(rng.integers(0, 2**64, size=count + 10, dtype=np.uint64))
    return rng.permutation(numbers)[:count]


def make_benchmarks(rng: np.random.Generator, live: pd.DataFrame) -> pd.DataFrame:
    """The benchmark models' predictions: the same ids and era, one column of ranks per model."""
    scores = pd.DataFrame(
        rng.random((len(live), len(BENCHMARKS))), index=live.index, columns=list(BENCHMARKS)
    )
    ranks = scores.rank(pct=True).astype("float32")
    ranks.insert(0, "era", live["era"])
    return ranks


def train(rng: np.random.Generator, names: list[str], seed: int) -> lightgbm.Booster:
    """Train on a target in five bins that depends faintly on a tenth of the features."""
    features = make_features(rng, TRAIN_ROWS, names)
    weights = np.where(np.arange(len(names)) % 10 == 0, rng.normal(size=len(names)), 0)
    signal = features.to_numpy() @ weights
    noisy = pd.Series(signal + rng.normal(scale=2 * signal.std(), size=TRAIN_ROWS))
    target = pd.qcut(noisy, [0, 0.05, 0.25, 0.75, 0.95, 1], labels=False) / 4
    parameters = {
        "objective": "regression",
        "learning_rate": 0.02,
        "max_depth": 5,
        "num_leaves": 15,
        "feature_fraction": 0.1,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 2,
        "verbose": -1,
    }
    return lightgbm.train(parameters, lightgbm.Dataset(features, target), TREES)


def make_predict(booster: lightgbm.Booster):
    """The function to pickle. cloudpickle stores its code and the booster, not this module."""

    def predict(live_features: pd.DataFrame, live_benchmark_models: pd.DataFrame) -> pd.DataFrame:
        own = booster.predict(live_features[booster.feature_name()])
        own_rank = pd.Series(own, index=live_features.index).rank(pct=True)
        benchmark = live_benchmark_models["v52_lgbm_cyrusd20"].rank(pct=True)
        blend = (0.9 * own_rank + 0.1 * benchmark).rank(pct=True)
        return blend.to_frame("prediction")

    return predict


if __name__ == "__main__":
    main()
