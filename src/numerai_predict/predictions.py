"""What a model returned, as the text that the launcher checks and writes.

Only what that text cannot show is checked here; Numerai's rules are in `validation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from numerai_predict.errors import InvalidPredictions, ModelError

ID = "id"


def to_csv(parts: Sequence[pd.DataFrame], live_ids: pd.Index) -> bytes:
    """The frames of a model's calls, one below the other, as CSV with the ids in front.

    Args:
        parts: the model's frames, one per era.
        live_ids: the ids of the live data.

    Returns:
        UTF-8 text with the header `id,<columns>` and one line per row.

    Raises:
        InvalidPredictions: the index holds no ids, or the columns differ between eras.
        ModelError: a frame cannot be written.
    """
    for part in parts:
        _check_index(part, live_ids)
    columns = {tuple(map(str, part.columns)) for part in parts}
    if len(columns) != 1:
        raise _invalid(f"the columns must be the same for every era, they are {sorted(columns)}")
    try:
        frame = parts[0] if len(parts) == 1 else pd.concat(parts)
        return frame.to_csv(index_label=ID, lineterminator="\n").encode()
    except Exception as error:
        raise ModelError(
            f"the model's DataFrame cannot be written as CSV: {type(error).__name__}: {error}"
        ) from error


def _check_index(frame: pd.DataFrame, live_ids: pd.Index) -> None:
    if ID in frame.columns:
        raise _invalid("the ids are a column, they must be the index: use .set_index('id')")
    if frame.index.nlevels != 1:
        raise _invalid(f"the index must be the ids alone, it is {_some(frame.index.names)}")
    # An index that lost its name, but holds live ids, can only be meant as ids.
    if frame.index.name != ID and not frame.index.astype(str).isin(live_ids.astype(str)).all():
        raise _invalid(
            f"the index must hold the ids of the live data; it begins {_some(frame.index)}"
        )


def _some(values: Any) -> list[str]:
    return [str(value)[:50] for value in values[:3]]


def _invalid(why: str) -> InvalidPredictions:
    return InvalidPredictions(f"invalid_submission_headers: {why}")
