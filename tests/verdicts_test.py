"""The launcher's verdict on predictions is that of numerai_tools, which are Numerai's own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerai_predict import validation
from numerai_predict.errors import InvalidPredictions

LIVE = [f"n{number:015x}" for number in range(12)]

Judge = Callable[[list[str], bytes], str]


@pytest.fixture(scope="session")
def numerai(environment: Callable[..., AbstractContextManager[Path]]) -> Iterator[Judge]:
    """Asks numerai_tools, in a process that has it."""
    with environment("3rdparty/python/numerai-tools.txt") as python:
        argv = [str(python), "-W", "ignore", "tests/numerai_verdicts.py"]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:

            def judge(live_ids: list[str], csv: bytes) -> str:
                assert process.stdin and process.stdout
                submission = {"live_ids": live_ids, "csv": csv.decode("latin-1")}
                print(json.dumps(submission), file=process.stdin, flush=True)
                return json.loads(process.stdout.readline())

            yield judge


def our_verdict(live_ids: list[str], csv: bytes) -> str:
    try:
        validation.check(csv, live_ids)
    except InvalidPredictions as error:
        return str(error).split(": ")[0].removeprefix("invalid_submission_")
    return "accepted"


def agree(ours: str, theirs: str) -> bool:
    """Equal; where theirs is an exception without a name, ours may be any refusal."""
    named = theirs in ("accepted", "headers", "ids", "values")
    return ours == theirs if named else ours != "accepted"


# Both sides of every limit, and what has no side.
EXTREMES = [
    *(0.0, -0.0, 5e-324, -9.9e-9, -1e-8, -1.1e-8, -1e-3),
    *(1.0, 1 + 2.3e-16, 1 + 1e-5, 1.000010009, 1.000010011, 1.1, 1e300),
    *(float("nan"), float("inf"), float("-inf")),
]
ODD_TEXTS = [
    *("high", "", " 0.5", "0.5 ", "\t.5", "+0.5", "++0.5", "-0", "0_1", "0x1p-1", "0,5", "1/2"),
    *("1e-400", "1e400", "5E-1", "1.", ".", "1e", "1e+", "0.5f", "0.5\xa0", "٠.٥", "9" * 30),
    *("True", "TRUE", "false", " True", "yes", "inf", "-Inf", "Infinity", " inf", "infinit"),
    *("nan", "NaN", "-nan", "+nan", "NAN", "NULL", "null", "None", "NONE", "<NA>", "#N/A"),
]
ODD_VALUES = [*ODD_TEXTS, None, pd.NA, True, 0, 10**30, Decimal("0.25"), 0.5j, pd.Timestamp(0)]
ODD_IDS = [None, np.nan, pd.NA, "", " ", "NA", "None", 7, 0.5, "a,b", 'a"b', "a\nb", f" {LIVE[0]}"]
DTYPES = ["float32", "float16", "str", "string", "category", "Float64", "double[pyarrow]"]
WHOLE_DTYPES = ["int8", "Int8", "float32", "bool", "boolean", "object", "category", "str"]
NAMES: list[object] = [
    *("prediction", "probability", "pred", "Prediction", " prediction", "era", "id", "", 0, None)
]


@dataclass
class Draft:
    """Of a frame whose columns all have the same values; faults change it."""

    ids: list[object]
    values: list[object]
    header: list[object]
    dtype: str | None = None

    def frame(self) -> pd.DataFrame:
        values = pd.Series(self.values, dtype=object)
        try:
            values = values.astype(self.dtype) if self.dtype else values.infer_objects()
        except (TypeError, ValueError):
            pass  # Some values do not fit.
        frame = pd.concat([values] * len(self.header) or [pd.DataFrame(index=values.index)], axis=1)
        return frame.set_axis(self.header, axis=1).set_axis(pd.Index(self.ids, dtype=object))


def replace_one(draw: st.DrawFn, items: list[object], choices: list[object]) -> None:
    if items:
        items[draw(st.integers(0, len(items) - 1))] = draw(st.sampled_from(choices))


def an_extreme_value(draw: st.DrawFn, draft: Draft) -> None:
    replace_one(draw, draft.values, [*EXTREMES])


def an_odd_value(draw: st.DrawFn, draft: Draft) -> None:
    replace_one(draw, draft.values, ODD_VALUES)


def a_dtype(draw: st.DrawFn, draft: Draft) -> None:
    draft.dtype = draw(st.sampled_from(DTYPES))


def zeros_and_ones(draw: st.DrawFn, draft: Draft) -> None:
    draft.dtype = draw(st.sampled_from(WHOLE_DTYPES))
    draft.values = [draw(st.integers(0, 1)) for _ in draft.values]


def nearly_constant(draw: st.DrawFn, draft: Draft) -> None:
    middle = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    scale = draw(st.sampled_from([0, 1e-17, 1e-12, 7e-9, 9e-9, 1.1e-8, 1.3e-8, 1e-7]))
    draft.values = [middle + scale * (-1) ** row for row in range(len(draft.values))]


def another_order(draw: st.DrawFn, draft: Draft) -> None:
    draft.ids = draw(st.permutations(draft.ids))


def fewer_rows(draw: st.DrawFn, draft: Draft) -> None:
    rows = draw(st.integers(0, len(draft.ids)))
    del draft.ids[rows:], draft.values[rows:]


def a_row_twice(draw: st.DrawFn, draft: Draft) -> None:
    draft.ids += draft.ids[:1]
    draft.values += draft.values[:1]


def rows_of_yesterday(draw: st.DrawFn, draft: Draft) -> None:
    for _ in range(draw(st.integers(1, 2))):
        draft.ids.append("of_yesterday")
        draft.values.append(draw(st.sampled_from([0.5, *EXTREMES, *ODD_VALUES])))


def an_odd_id(draw: st.DrawFn, draft: Draft) -> None:
    draft.ids.append(draw(st.sampled_from(ODD_IDS)))
    draft.values.append(0.5)


def a_wrong_id(draw: st.DrawFn, draft: Draft) -> None:
    replace_one(draw, draft.ids, [*ODD_IDS, *LIVE])


def lost_ids(draw: st.DrawFn, draft: Draft) -> None:
    draft.ids = list(range(len(draft.ids)))


def a_header(draw: st.DrawFn, draft: Draft) -> None:
    draft.header = draw(st.lists(st.sampled_from(NAMES), max_size=2))


Fault = Callable[[st.DrawFn, Draft], None]
# With the verdict that it must have led to in some of its frames.
FAULTS: dict[Fault, str] = {
    an_extreme_value: "values",
    an_odd_value: "values",
    a_dtype: "accepted",
    zeros_and_ones: "accepted",
    nearly_constant: "values",
    another_order: "accepted",
    fewer_rows: "ids",
    a_row_twice: "ids",
    rows_of_yesterday: "accepted",
    an_odd_id: "ids",
    a_wrong_id: "ids",
    lost_ids: "ids",
    a_header: "headers",
}


@st.composite
def submissions(draw: st.DrawFn, fault: Fault) -> tuple[list[str], pd.DataFrame]:
    """Live ids, and good predictions of them to which a fault happened, and perhaps others."""
    live = LIVE[: draw(st.integers(1, len(LIVE)))]
    values = draw(st.lists(st.floats(0, 1), min_size=len(live), max_size=len(live)))
    draft = Draft([*live], [*values], ["prediction"])
    others = draw(st.lists(st.sampled_from(list(FAULTS)), max_size=2))
    for change in draw(st.permutations([fault, *others])):
        change(draw, draft)
    return live, draft.frame()


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("fault", FAULTS)
def test_frames_have_the_verdict_of_numerai(fault: Fault, numerai: Judge) -> None:
    verdicts = set()

    @settings(max_examples=100, derandomize=True, database=None, deadline=None)
    @given(submissions(fault))
    def same_verdict(submission: tuple[list[str], pd.DataFrame]) -> None:
        live, frame = submission
        csv = frame.to_csv(index_label="id").encode()  # as the worker does
        ours, theirs = our_verdict(live, csv), numerai(live, csv)
        assert agree(ours, theirs), f"{ours=} {theirs=}\n{csv.decode()}"
        if ours == "accepted":
            submitted = validation.check(csv, live).to_csv().encode()
            assert numerai(live, submitted) == "accepted"
        verdicts.add(theirs)

    same_verdict()
    assert FAULTS[fault] in verdicts


ROWS = [f"{id_},{value}\n" for id_, value in zip(LIVE[:3], ("0", "0.5", "1"))]
GOOD = "".join(["id,prediction\n", *ROWS])


@pytest.mark.parametrize("scale", [0, 1e-12, 6e-9, 7.2e-9, 9e-9, 9.8e-9, 1.1e-8, 1e-7])
def test_values_that_hardly_differ_have_the_verdict_of_numerai(
    scale: float, numerai: Judge
) -> None:
    for rows in range(1, len(LIVE) + 1):
        values = [0.5 + scale * (-1) ** row for row in range(rows)]
        csv = pd.Series(values, LIVE[:rows], name="prediction").to_csv(index_label="id").encode()
        assert our_verdict(LIVE[:rows], csv) == numerai(LIVE[:rows], csv)


@pytest.mark.parametrize(
    "value", [*map(str, EXTREMES), *ODD_TEXTS, *(f'"{text}"' for text in ODD_TEXTS), '"0.5\n"']
)
def test_one_value_has_the_verdict_of_numerai(value: str, numerai: Judge) -> None:
    for text in (GOOD.replace("0.5", value), f"{GOOD}of_yesterday,{value}\n"):
        csv = text.encode()
        assert agree(our_verdict(LIVE[:3], csv), numerai(LIVE[:3], csv)), text


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n", ",", "id", "id,prediction", GOOD.strip(), "\ufeff" + GOOD, " \n\t\n" + GOOD),
        *(GOOD.replace("\n", end) for end in ("\r\n", "\r", "\n\n \n", ",\n", "\x1a\n", ";\n")),
        *(
            GOOD + row
            for row in (",\n", '""\n', ",0.5\n", "x\n", "x,1,\n", "x,1,2\n", '" "\n', '"')
        ),
        *(GOOD + row for row in ("x,'1'", 'x,"1', 'x,1"', 'x"y,1', '"x\ny",1', '"x""y",1')),
        GOOD.replace("prediction", "probability"),
        *(GOOD.replace("id,", head) for head in ('"id",', " id,", "id ,", "ID,", "id, ", "id,id,")),
        *(GOOD.replace(",", separator) for separator in (";", "\t", ", ", ",,")),
    ],
)
def test_other_texts_have_the_verdict_of_numerai(text: str, numerai: Judge) -> None:
    csv = text.encode()
    assert agree(our_verdict(LIVE[:3], csv), numerai(LIVE[:3], csv))


@pytest.mark.parametrize(
    "text",
    [
        "".join(["id,prediction\n", *(f"X,{row}" for row in ROWS)]),
        f"{GOOD}x\0,1\n",
        f"{GOOD}{'x' * 150_000},1\n",
        f'{GOOD}"x"y,1\n',
    ],
    ids=["index_of_two", "nul", "long_id", "text_after_quote"],
)
def test_more_is_refused_than_by_numerai(text: str, numerai: Judge) -> None:
    assert numerai(LIVE[:3], text.encode()) == "accepted"
    assert our_verdict(LIVE[:3], text.encode()) == "headers"
