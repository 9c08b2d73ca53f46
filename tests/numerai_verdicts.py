"""Numerai's own verdict on predictions, reached as their platform does: pandas and numerai_tools.

    python numerai_verdicts.py

Answers lines of JSON, {"live_ids": […], "csv": "<bytes as latin-1>"}, with a line each: accepted,
the name of what is wrong (headers, ids, values), or the exception that says it without a name.
"""

import io
import json
import re
import sys

import pandas as pd
from numerai_tools.submissions import validate_submission_numerai  # pants: no-infer-dep


def verdict(live_ids: list[str], csv: bytes) -> str:
    try:
        validate_submission_numerai(pd.Series(live_ids), pd.read_csv(io.BytesIO(csv)))
    except Exception as error:
        named = re.match("invalid_submission_(headers|ids|values): ", str(error))
        return named[1] if named else repr(error)
    return "accepted"


for line in sys.stdin:
    submission = json.loads(line)
    answer = verdict(submission["live_ids"], submission["csv"].encode("latin-1"))
    print(json.dumps(answer), flush=True)
