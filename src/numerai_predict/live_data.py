"""Live features and benchmark models: reading them, and cutting them into a model's calls.

Importing this imports pyarrow, but not pandas: Arrow decodes a file while pandas is imported.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow
import pyarrow.parquet

from numerai_predict.errors import UnreadableData, UsageError

if TYPE_CHECKING:
    import pandas as pd

ID = "id"


def read(fd: int) -> pyarrow.Table:
    """Read a parquet file as Numerai makes them, and close it.

    Returns:
        A table with the column `id` (str) and the file's columns: for live data `era` (str) and the
        features (int8), for benchmark models `era` and one float column per model.

    Raises:
        UnreadableData: it is no parquet file, has no ids or no rows.
    """
    try:
        mapped = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        # Not pyarrow.parquet.read_table: what it imports takes longer than the reading.
        table = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(mapped)).read()
    except Exception as error:  # pyarrow has a dozen ways to say so
        raise UnreadableData(f"cannot be read as parquet: {error}") from error
    finally:
        os.close(fd)
    if ID not in table.column_names:
        raise UnreadableData("has no ids: neither an index nor a column is named id")
    if not table.num_rows:
        raise UnreadableData("has no rows")
    return table


def ids(table: pyarrow.Table) -> list[str]:
    """The ids of a table's rows, as text."""
    return table.column(ID).cast(pyarrow.string()).to_pylist()


def to_frame(table: pyarrow.Table) -> pd.DataFrame:
    """The rows of a table, indexed by `id`, in as few blocks as pandas can have them.

    The table's memory is taken over: it is of no use afterwards.
    """
    frame = table.to_pandas(self_destruct=True)
    return frame if frame.index.name == ID else frame.reset_index(drop=True).set_index(ID)


def check_same_rows(features: pd.DataFrame, benchmarks: pd.DataFrame) -> None:
    """Make sure that a model can be given the benchmark models of all its rows.

    Raises:
        UsageError: the benchmark models lack some of the live ids.
    """
    missing = ~features.index.isin(benchmarks.index)
    if missing.any():
        raise UsageError(
            f"the benchmark models lack {missing.sum()} of the {len(features)} ids of the live "
            f"data, for example {features.index[missing][0]}: give --dataset and --benchmarks "
            "of the same round"
        )


def by_era(
    features: pd.DataFrame, benchmarks: pd.DataFrame | None
) -> Iterator[tuple[pd.DataFrame, ...]]:
    """Cut the data into the model's calls, one per era, as numerai-predict does.

    Models rank within what they are given; live data is one era, validation data is many.

    Args:
        features: the live data.
        benchmarks: the same for the benchmark models, None if the model does not take them.

    Yields:
        (features,) or (features, benchmarks) of one era, with the same rows in the same order.
    """
    several = "era" in features and features["era"].nunique(dropna=False) > 1
    parts = (part for _, part in features.groupby("era", dropna=False)) if several else [features]
    for part in parts:
        yield (part,) if benchmarks is None else (part, benchmarks.loc[part.index])
