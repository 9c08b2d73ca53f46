import os

import pandas as pd
import pytest

from numerai_predict import live_data
from numerai_predict.conftest import ROWS


def good(live_features):
    return live_features["feature_a"].rank(pct=True, method="first").to_frame("prediction")


def benchmark(live_features, live_benchmark_models):
    assert list(live_features.index) == list(live_benchmark_models.index)
    return live_benchmark_models["v52_lgbm"].to_frame("prediction")


def test_benchmarks_have_the_rows_of_the_live_data_in_their_order(run, pickled, live):
    done = run(pickled(benchmark))
    assert done.code == 0, done.log
    assert list(pd.read_csv(done.csv)["id"]) == list(live.index)


def test_benchmarks_of_another_round_are_refused(run, pickled, live, tmp_path):
    live.iloc[5:].to_parquet(tmp_path / "old.parquet")
    done = run(pickled(benchmark), f"--benchmarks={tmp_path}/old.parquet")
    assert done.code == 2
    assert "lack 5 of the 40 ids" in done.log


def test_a_one_argument_model_reads_no_benchmarks(run, pickled, tmp_path):
    (tmp_path / "live_benchmark_models.parquet").write_bytes(b"nonsense")
    assert run(pickled(good)).code == 0
    done = run(pickled(benchmark))
    assert done.code == 2
    assert "live_benchmark_models.parquet cannot be read as parquet" in done.log


def test_every_era_is_a_call_of_its_own(run, pickled, live, tmp_path):
    live.assign(era=["1"] * 30 + ["2"] * 10).to_parquet(tmp_path / "eras.parquet")

    def constant_era(live_features):
        assert live_features["era"].nunique() == 1
        return good(live_features)

    done = run(pickled(constant_era), f"--dataset={tmp_path}/eras.parquet")
    assert done.code == 0, done.log
    ranks = pd.read_csv(done.csv, index_col="id")["prediction"]
    assert len(ranks) == ROWS
    assert ranks[:30].max() == ranks[30:].max() == 1


def test_a_model_may_change_its_input_in_place(run, pickled):
    def in_place(x):
        x["prediction"] = x["feature_a"].rank(pct=True, method="first")
        result = x[["prediction"]].copy()
        x.reset_index(inplace=True)
        return result

    assert run(pickled(in_place)).code == 0


def test_a_frame_is_what_pandas_would_read_in_one_block_per_type(live, tmp_path):
    path = tmp_path / "live.parquet"
    table = live_data.read(os.open(path, os.O_RDONLY))
    assert live_data.ids(table) == list(live.index)
    frame = live_data.to_frame(table)
    pd.testing.assert_frame_equal(frame, pd.read_parquet(path))
    assert frame._mgr.nblocks == 2


def test_ids_in_a_column_become_the_index(run, pickled, live, tmp_path):
    live.reset_index().to_parquet(tmp_path / "column.parquet")
    done = run(pickled(good), f"--dataset={tmp_path}/column.parquet")
    assert done.code == 0, done.log


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda live: live.reset_index(drop=True), "has no ids"),
        (lambda live: live.iloc[:0], "has no rows"),
        (None, "cannot be read as parquet"),
    ],
)
def test_unusable_local_data_is_a_usage_error(run, pickled, live, tmp_path, change, says):
    path = tmp_path / "bad.parquet"
    change(live).to_parquet(path) if change else path.write_bytes(b"id,era\n")
    done = run(pickled(good), f"--dataset={path}")
    assert done.code == 2
    assert says in done.log
