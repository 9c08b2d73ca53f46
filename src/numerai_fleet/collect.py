"""What a run came to: a row for each model, in one Parquet file, and a summary."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from numerai_fleet import verdicts
from numerai_fleet.journal import Record
from numerai_fleet.manifest import Model

# In the order of a run; seconds.
PHASES = ("download", "start", "load", "predict", "validate", "upload")
SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("image", pa.string()),
        ("code", pa.int32()),  # none: the last try was lost
        ("verdict", pa.string()),
        ("message", pa.string()),
        ("rows", pa.int64()),
        ("tries", pa.int32()),
        ("seconds", pa.float64()),
        *((f"{phase}_seconds", pa.float64()) for phase in PHASES),
        ("peak_memory", pa.int64()),  # bytes
        ("output", pa.string()),
    ]
)


def rows(models: Sequence[Model], records: Mapping[str, Record]) -> Iterator[dict[str, Any]]:
    """A row of SCHEMA for each model, in the manifest's order; without a code where it did not end."""
    for model in models:
        record = records.get(model.name, Record())
        result = record.result
        phases = result.get("phases", {})
        yield {
            "name": model.name,
            "image": model.image,
            "code": record.code,
            "verdict": verdicts.name(record.code) if record.ended else "not run",
            "message": result.get("message") or record.message,
            "rows": result.get("rows"),
            "tries": record.tries,
            "seconds": record.seconds,
            **{f"{phase}_seconds": phases.get(phase) for phase in PHASES},
            "peak_memory": result.get("peak_memory"),
            "output": result.get("output"),
        }


def from_logs(text: str) -> dict[str, Record]:
    """What `--result=-` said on standard output, by the models' names; other lines are passed over.
    An engine may put its own words before a line."""
    records: dict[str, Record] = {}
    for line in text.splitlines():
        try:
            result = json.loads(line[line.index("{") :])
        except ValueError:
            continue
        if isinstance(result, dict) and {"entry", "code", "phases"} <= result.keys():
            tries = records.get(result["entry"], Record()).tries + 1
            seconds = sum(result["phases"].values())
            records[result["entry"]] = Record(tries, True, result["code"], result, seconds=seconds)
    return records


def write(found: Sequence[dict[str, Any]], path: Path) -> None:
    """Raises OSError: the file cannot be written."""
    pq.write_table(pa.Table.from_pylist(list(found), SCHEMA), path)


def predictions(found: Sequence[dict[str, Any]]) -> pa.Table:
    """The predictions that stayed here: `id`, and a column of float64 for each model; a model that
    lacks an id has none for it."""
    by_model: dict[str, dict[str, float]] = {}
    for row in found:
        if row["output"]:
            with open(row["output"], newline="") as file:
                by_model[row["name"]] = {
                    each["id"]: float(each["prediction"]) for each in csv.DictReader(file)
                }
    ids = list(dict.fromkeys(each for values in by_model.values() for each in values))
    columns = {name: [values.get(id) for id in ids] for name, values in by_model.items()}
    types = {name: pa.array(values, pa.float64()) for name, values in columns.items()}
    return pa.table({"id": pa.array(ids, pa.string()), **types})


def summary(found: Sequence[dict[str, Any]]) -> str:
    """Counts, and by name what is not as it should be."""
    counts = Counter(row["verdict"] for row in found)
    lines = [
        f"{len(found)} models: " + ", ".join(f"{n} {word}" for word, n in counts.most_common())
    ]
    width = max((len(row["name"]) for row in found), default=0)
    for row in found:
        if row["verdict"] != "ok":
            message = (row["message"] or "").partition("\n")[0]
            lines.append(f"  {row['name']:{width}}  {row['verdict']}: {message}".rstrip(": "))
    ended = [row for row in found if row["verdict"] == "ok"]
    if ended:
        slowest = max(ended, key=lambda row: row["seconds"])
        largest = max(ended, key=lambda row: row["peak_memory"] or 0)
        lines.append(
            f"slowest: {slowest['name']}, {slowest['seconds']:.1f} s; "
            f"largest: {largest['name']}, {(largest['peak_memory'] or 0) / 1e6:.0f} MB"
        )
    return "\n".join(lines)
