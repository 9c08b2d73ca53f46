"""The predictions' CSV text, as a worker that is not trusted sent it, held to Numerai's rules.

The rules, their order and their names are those of `numerai_tools.submissions` (0.7.2:
`validate_submission_numerai`), applied to what `pandas.read_csv` makes of the text. Stricter than
pandas in what `DataFrame.to_csv` never writes: NUL, a row with more fields than the header, text
after a closing quote, a field of more than 128 kB.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, NoReturn

from numerai_predict.errors import InvalidPredictions

ID = "id"
COLUMNS = ("prediction", "probability")

# How pandas.read_csv reads a field that is no ordinary text. `float` reads more than NUMBER:
# underscores, other scripts' digits.
NUMBER = re.compile(
    r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?\s*|[+-]?inf(?:inity)?", re.ASCII | re.IGNORECASE
)
BOOLEANS = {"True": 1.0, "TRUE": 1.0, "true": 1.0, "False": 0.0, "FALSE": 0.0, "false": 0.0}
MISSING = frozenset(
    "|NA|N/A|n/a|#N/A|#N/A N/A|#NA|<NA>|NULL|null|None|NaN|nan|-NaN|-nan"
    "|1.#IND|-1.#IND|1.#QNAN|-1.#QNAN".split("|")
)


class Predictions(NamedTuple):
    """Rows of live ids, each id once, in the worker's order.

    Attributes:
        column: `prediction` or `probability`.
        ids: the live ids.
        values: one number in [0, 1] per id, as the text that the worker wrote.
    """

    column: str
    ids: list[str]
    values: list[str]

    def to_csv(self) -> str:
        """The file to submit: header `id,prediction`, lines that end with a line feed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((ID, self.column))
        writer.writerows(zip(self.ids, self.values))
        return text.getvalue()


def check(text: bytes, live_ids: Sequence[str]) -> Predictions:
    """Hold a CSV text to Numerai's rules.

    Args:
        text: what the worker sent; it may be anything.
        live_ids: the ids that must be there, each of them once; at least one.

    Returns:
        The predictions of the live ids; rows of other ids are dropped.

    Raises:
        InvalidPredictions: with a message that begins `invalid_submission_headers:` (also where
            the text is no CSV at all), `invalid_submission_ids:` or `invalid_submission_values:`.
    """
    rows = _read(text)
    column = _check_headers(next(rows, []))
    live = frozenset(live_ids)
    ids, values = [], []
    nameless = 0
    stranger = None
    # The first row of each kind, of all rows: pandas gives a column one type.
    kinds: dict[str, tuple[str, str]] = {}
    for id_, value in rows:
        kinds.setdefault(_kind(value), (id_, value))
        if id_ in MISSING:
            nameless += 1
        elif id_ in live:
            ids.append(id_)
            values.append(value)
        else:
            stranger = stranger or id_
    _check_ids(ids, live, nameless, stranger)
    _check_numbers(kinds)
    _check_values(ids, values)
    return Predictions(column, ids, [value.strip() for value in values])


def _read(text: bytes) -> Iterator[list[str]]:
    """The rows as pandas reads them: without blank lines, short ones filled up with nothing."""
    if b"\0" in text:
        _refuse("headers", "the predictions are no CSV text: they contain a NUL byte")
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(text), "utf-8-sig", newline=""), strict=True)
    width = 0
    try:
        for row in reader:
            if not row or (len(row) == 1 and row[0].isspace()):
                continue
            width = width or len(row)
            if len(row) > width:
                number = reader.line_num
                _refuse("headers", f"line {number} has {len(row)} fields, the header has {width}")
            yield row if len(row) == width else row + [""] * (width - len(row))
    except (csv.Error, UnicodeDecodeError) as error:
        _refuse("headers", f"the predictions are no CSV text at line {reader.line_num}: {error}")


def _check_headers(header: list[str]) -> str:
    """The predictions' column, if the header is `id` and one of COLUMNS."""
    columns = header[1:]
    if not header:
        _refuse("headers", "the predictions are empty")
    if header[0] != ID:
        _refuse("headers", f"the first column must be {ID}, it is {_show(header[0])}")
    if ID in columns:
        _refuse("headers", "the ids are a column, they must be the index: use .set_index('id')")
    if not columns:
        _refuse("headers", "there is no column prediction: return scores.to_frame('prediction')")
    if len(columns) != 1 or columns[0] not in COLUMNS:
        names = ", ".join(map(_show, columns[:5])) + (", …" if columns[5:] else "")
        _refuse("headers", f"the only column must be prediction, the model returned {names}")
    return columns[0]


def _check_ids(ids: list[str], live: frozenset[str], nameless: int, stranger: str | None) -> None:
    """Refuse empty ids anywhere, and live ids that are there twice or not at all.

    Args:
        ids: the rows' ids that are live.
        nameless: how many rows have no id.
        stranger: the first id that is not live, if there is one.
    """
    if nameless:
        _refuse("ids", f"{nameless} rows have no id: drop them, or index by live_features.index")
    found = set(ids)
    if duplicates := len(ids) - len(found):
        ((example, _),) = Counter(ids).most_common(1)
        _refuse("ids", f"{duplicates} duplicate ids, for example {example}: each may be there once")
    if missing := len(live) - len(found):
        text = f"{missing} of {len(live)} live ids missing, for example {min(live - found)}"
        if stranger is not None:
            text += f"; there is {_show(stranger)}, which is not live"
        _refuse("ids", f"{text}: predict every row, and index by live_features.index")


def _check_numbers(kinds: dict[str, tuple[str, str]]) -> None:
    """Refuse a column that pandas would not read as numbers or as booleans."""
    if {"number", "boolean"} <= kinds.keys():
        kinds.setdefault("text", kinds["boolean"])
    if "text" in kinds:
        id_, value = map(_show, kinds["text"])
        _refuse("values", f"predictions must be numbers, that of {id_} is {value}")


def _check_values(ids: list[str], values: list[str]) -> None:
    """Refuse missing values, values outside [0, 1], and values that are all the same.

    Args:
        values: of the kinds number, boolean and missing.
    """
    missing = [id_ for id_, value in zip(ids, values) if value in MISSING]
    if missing:
        text = f"{len(missing)} predictions are NaN, for example that of {missing[0]}"
        _refuse("values", f"{text}: replace them, for example with .fillna(0.5)")
    numbers = [BOOLEANS[value] if value in BOOLEANS else float(value) for value in values]
    low, high = min(numbers), max(numbers)
    if not ((low >= 0 or _is_close(low, 0)) and (high <= 1 or _is_close(high, 1))):
        text = f"predictions must be between 0 and 1, they are from {low} to {high}"
        _refuse("values", f"{text}: use .rank(pct=True)")
    if len(numbers) > 1 and _is_close(0, deviation := _standard_deviation(numbers)):
        text = f"all predictions are equal or nearly so, from {low} to {high}"
        _refuse("values", f"{text}: their standard deviation is zero ({deviation:.1g})")


def _kind(value: str) -> str:
    """What pandas.read_csv takes a field for: number, boolean, missing or text."""
    if NUMBER.fullmatch(value):
        return "number"
    if value in BOOLEANS:
        return "boolean"
    return "missing" if value in MISSING else "text"


def _is_close(number: float, to: float) -> bool:
    """`numpy.isclose`, which is not symmetric."""
    return abs(number - to) <= 1e-8 + 1e-5 * abs(to)


def _standard_deviation(numbers: list[float]) -> float:
    """Of a sample of at least two, as `pandas.Series.std` has it."""
    mean = math.fsum(numbers) / len(numbers)
    squares = math.fsum((number - mean) ** 2 for number in numbers)
    return math.sqrt(squares / (len(numbers) - 1))


def _show(text: str) -> str:
    """Text of the model's making, safe to print."""
    return repr(text if len(text) <= 40 else text[:39] + "…")


def _refuse(what: str, why: str) -> NoReturn:
    raise InvalidPredictions(f"invalid_submission_{what}: {why}")
