"""What Numerai accepts and refuses; tests/verdicts_test.py shows that numerai_tools agrees."""

import re
import subprocess
import sys

import pytest

from numerai_predict import validation
from numerai_predict.errors import InvalidPredictions

LIVE = ["n1", "n2", "n3", "n4"]
GOOD = "id,prediction\nn1,0.0\nn2,0.25\nn3,0.5\nn4,1.0\n"


def refusal(text):
    """The message about a text."""
    csv = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(InvalidPredictions) as refused:
        validation.check(csv, LIVE)
    return str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("prediction", "probability"),
        "id,prediction\nn4,1\nn3,0\nn2,1\nn1,0\n",
        "id,prediction\nn4,True\nn3,False\nn2,True\nn1,False\n",
        GOOD.replace("0.25", "-1e-09").replace("1.0", "1.000000001"),
        GOOD.replace("0.25", '"+.25"').replace("n3", '"n3"'),
        GOOD + "of_yesterday,\nof_yesterday,5\n",
        "\ufeff" + GOOD.replace("\n", "\r\n\r\n").rstrip(),
    ],
)
def test_what_numerai_accepts(text):
    checked = validation.check(text.encode(), LIVE)
    assert sorted(checked.ids) == LIVE
    assert checked.column == ("probability" if "probability" in text else "prediction")


def test_the_file_has_the_live_rows_in_the_order_and_with_the_numbers_of_the_model():
    text = '"id","prediction"\r\nn4,1\r\nn3,2.50e-1\r\nx,.5\r\nn2, 0.30000000000000004 \r\nn1,0\r\n'
    checked = validation.check(text.encode(), LIVE)
    assert checked.ids == ["n4", "n3", "n2", "n1"]
    assert checked.to_csv() == "id,prediction\nn4,1\nn3,2.50e-1\nn2,0.30000000000000004\nn1,0\n"


@pytest.mark.parametrize(
    "text, error, says",
    [
        (GOOD.replace("prediction", "pred"), "headers", "must be prediction, .* returned 'pred'$"),
        (GOOD.replace("\n", ",0\n").replace("n,0", "n,era"), "headers", "'prediction', 'era'"),
        ("id\nn1\n", "headers", "no column prediction"),
        (GOOD.replace("id,", "id,id,"), "headers", r"use \.set_index\('id'\)"),
        (GOOD.replace("id,", "index,"), "headers", "first column must be id, it is 'index'"),
        ("id,prediction\n0,0.1\n1,0.2\n", "ids", "4 of 4 .* missing, .* n1; there is '0'"),
        (GOOD.replace("n2", "n1"), "ids", "1 duplicate ids, for example n1"),
        (GOOD.replace("n1,0.0\n", ""), "ids", "1 of 4 live ids missing, for example n1:"),
        ("id,prediction\n", "ids", "4 of 4 live ids missing"),
        (GOOD + ",0.5\nNone,0.5\n", "ids", "2 rows have no id"),
        (GOOD.replace("0.25", ""), "values", "1 predictions are NaN, .* n2: .*fillna"),
        (GOOD.replace("0.25", "inf"), "values", "between 0 and 1, they are from 0.0 to inf"),
        (GOOD.replace("0.25", "-0.1"), "values", r"from -0.1 to 1.0: use \.rank\(pct=True\)"),
        (GOOD.replace("0.25", "(1+0j)"), "values", r"must be numbers, that of 'n2' is '\(1\+0j\)'"),
        (GOOD.replace("0.25", "True"), "values", "that of 'n2' is 'True'"),
        (re.sub(",[01].*", ",0.1", GOOD), "values", "all predictions are equal .* from 0.1 to 0.1"),
        (re.sub(",[01].*", ",", GOOD), "values", "4 predictions are NaN"),
    ],
)
def test_what_numerai_refuses(text, error, says):
    message = refusal(text)
    assert message.startswith(f"invalid_submission_{error}: ")
    assert re.search(says, message)


@pytest.mark.parametrize("number", ["1_0e-1", "0x1p-1", "٠.٥", "0,5", "1e", ".", "NAN", "0.5\xa0"])
def test_numbers_to_python_that_are_none_to_numerai(number):
    assert refusal(GOOD.replace("0.25", f'"{number}"')).startswith("invalid_submission_values: ")


NO_CSV = {
    "nothing": ("", "empty"),
    "blank lines": ("\n \n\n", "empty"),
    "bad UTF-8": (GOOD.encode() + b"\xff,1\n", "no CSV text .* can't decode byte 0xff"),
    "UTF-16": (GOOD.encode("utf-16-le"), "NUL"),
    "NUL": (GOOD + "a\0b,1\n", "NUL"),
    "open quote": (GOOD + '"n5,1\n', "no CSV text at line 6: unexpected end of data"),
    "text after quote": (GOOD + '"n"5,1\n', "no CSV text at line 6: "),
    "three fields": (GOOD + "n5,1,\n", "line 6 has 3 fields, the header has 2"),
    "a million fields": (GOOD + "n5" + ",1" * 1_000_000, "line 6 has 1000001 fields"),
    "a million columns": ("id" + ",x" * 1_000_000, "returned 'x', 'x', 'x', 'x', 'x', …$"),
    "a huge field": (GOOD + "n" * 1_000_000, "field larger than field limit"),
    "a zip file": ("PK\x03\x04,x", r"it is 'PK\\x03\\x04'"),
}


@pytest.mark.parametrize("text, says", NO_CSV.values(), ids=NO_CSV)
def test_text_that_is_no_csv_is_refused(text, says):
    message = refusal(text)
    assert message.startswith("invalid_submission_headers: ")
    assert re.search(says, message)
    assert len(message) < 300


def test_what_the_model_wrote_is_shown_without_its_control_characters():
    message = refusal(GOOD.replace("0.25", f"\x1b[2J{'x' * 1000}"))
    assert r"'\x1b[2Jx" in message
    assert "\x1b" not in message
    assert len(message) < 200


def test_it_needs_no_pandas():
    code = "import sys, numerai_predict.validation; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
