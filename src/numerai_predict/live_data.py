"""Live features and benchmark models: reading them, and cutting them into a model's calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow  # noqa: F401  (what pandas reads parquet with)

from numerai_predict.errors import UsageError


class Unreadable(Exception):
    """The file is no parquet file with rows indexed by `id`."""


def read(path: Path) -> pd.DataFrame:
    """Read a parquet file as Numerai makes them.

    Returns:
        A frame indexed by `id` (str), with the file's columns: for live data `era` (str) and the
        features (int8), for benchmark models `era` and one float column per model. Where `id` is
        an ordinary column, it becomes the index.

    Raises:
        Unreadable: it is no parquet file, has no ids or no rows.
    """
    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # pyarrow has a dozen ways to say so
        raise Unreadable(f"{path} cannot be read as parquet: {error}") from error
    if frame.index.name != "id" and "id" in frame.columns:
        frame = frame.set_index("id")
    if frame.index.name != "id":
        raise Unreadable(f"{path} has no ids: neither an index nor a column is named id")
    if frame.empty:
        raise Unreadable(f"{path} has no rows")
    return frame


def by_era(
    features: pd.DataFrame, benchmarks: pd.DataFrame | None
) -> Iterator[tuple[pd.DataFrame, ...]]:
    """Cut the data into the model's calls, one per era, as numerai-predict does.

    Models rank within what they are given; live data is one era, validation data is many.

    Args:
        features: what `read` returned for the live data.
        benchmarks: the same for the benchmark models, None if the model does not take them.

    Yields:
        (features,) or (features, benchmarks) of one era, with the same rows in the same order.

    Raises:
        UsageError: the benchmark models lack some of the live ids.
    """
    if benchmarks is not None:
        missing = ~features.index.isin(benchmarks.index)
        if missing.any():
            raise UsageError(
                f"the benchmark models lack {missing.sum()} of the {len(features)} ids of the live "
                f"data, for example {features.index[missing][0]}: give --dataset and --benchmarks "
                "of the same round"
            )
    several = "era" in features and features["era"].nunique(dropna=False) > 1
    parts = (part for _, part in features.groupby("era", dropna=False)) if several else [features]
    for part in parts:
        yield (part,) if benchmarks is None else (part, benchmarks.loc[part.index])
