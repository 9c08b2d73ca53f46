"""What comes back from a model: check it as Numerai will, and write it as a CSV file.

The rules and the beginnings of the messages are those of `numerai_tools.submissions` (0.7.2:
`validate_submission_numerai`), applied to the file that we write.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from numerai_predict.errors import InvalidPredictions, UsageError

ID = "id"
COLUMNS = ("prediction", "probability")


def check(parts: Sequence[pd.DataFrame], live_ids: pd.Index) -> pd.DataFrame:
    """Join a model's results and hold them to Numerai's rules, in Numerai's order.

    Args:
        parts: the model's frames, one per era.
        live_ids: the ids that must be there.

    Returns:
        A frame with the index `id` (str) and one column `prediction` (or `probability`, a number
        in [0, 1]): one row per live id in the model's order; ids that are not live are dropped.

    Raises:
        InvalidPredictions: with a message that begins `invalid_submission_headers:`,
            `invalid_submission_ids:` or `invalid_submission_values:`.
    """
    live = pd.Index(live_ids.astype(str))
    frames = [_check_headers(part, live) for part in parts]
    frame = frames[0] if len(frames) == 1 else pd.concat(frames)
    if len(frame.columns) != 1:
        _refuse("headers", f"the column must be the same for every era: {list(frame.columns)}")
    frame = _check_ids(frame, live)
    return frame.assign(**{frame.columns[0]: _check_values(frame.iloc[:, 0])})


def write(frame: pd.DataFrame, output_dir: Path) -> Path:
    """Write checked predictions to `live_predictions-<12 hex>.csv`, header `id,prediction`.

    Raises:
        UsageError: the folder cannot be written to.
    """
    path = output_dir / f"live_predictions-{secrets.token_hex(6)}.csv"
    try:
        frame.to_csv(path, index_label=ID, lineterminator="\n")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    return path


def _check_headers(frame: pd.DataFrame, live: pd.Index) -> pd.DataFrame:
    """The frame itself, if it is indexed by id and has exactly one column of an accepted name."""
    columns = list(frame.columns)
    if ID in columns:
        _refuse("headers", "the ids are a column, they must be the index: use .set_index('id')")
    if len(columns) != 1 or columns[0] not in COLUMNS:
        _refuse("headers", f"the only column must be prediction, the model returned {columns[:5]}")
    if frame.index.nlevels != 1:
        _refuse("headers", f"the index must be the ids alone, it is {list(frame.index.names)}")
    # An index that lost its name, but holds live ids, can only be meant as ids.
    if frame.index.name != ID and not frame.index.astype(str).isin(live).all():
        _refuse(
            "headers",
            f"the index must hold the ids of the live data; it begins {list(frame.index[:3])}",
        )
    return frame


def _check_ids(frame: pd.DataFrame, live: pd.Index) -> pd.DataFrame:
    """The rows of live ids, if every one is there once; the index becomes str, named id."""
    if frame.index.hasnans:
        _refuse("ids", "the index has empty ids")
    frame = frame.set_axis(frame.index.astype(str).rename(ID), axis="index")
    frame = frame[frame.index.isin(live)]
    duplicates = frame.index[frame.index.duplicated()]
    if len(duplicates):
        _refuse("ids", f"{len(duplicates)} duplicate ids, for example {duplicates[0]}")
    missing = live.difference(frame.index)
    if len(missing):
        _refuse("ids", f"{len(missing)} of {len(live)} live ids missing, for example {missing[0]}")
    return frame


def _check_values(values: pd.Series) -> pd.Series:
    """The values as numbers, if Numerai accepts them."""
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.dtype.kind == "c" or (numbers.isna() & values.notna()).any():
        _refuse("values", f"predictions must be numbers, they are {values.dtype}")
    # As float64, like the CSV's reader has them; written is what the model returned.
    exact = numbers.astype("float64")
    if exact.isna().any():
        _refuse("values", f"{exact.isna().sum()} predictions are NaN")
    low, high = exact.min(), exact.max()
    if not ((low >= 0 or np.isclose(low, 0)) and (high <= 1 or np.isclose(high, 1))):
        _refuse("values", f"predictions must be between 0 and 1, they are from {low} to {high}")
    if np.isclose(0, exact.std()):
        _refuse("values", f"all predictions are equal ({low}): their standard deviation is zero")
    return numbers


def _refuse(what: str, why: str) -> None:
    raise InvalidPredictions(f"invalid_submission_{what}: {why}")
