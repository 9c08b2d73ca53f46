"""What the predictor is measured against: the same job as a plain script in one process.

    python3 single_process.py MODEL DATASET BENCHMARKS OUTPUT

Sources are local files or URLs. No limits, no protection, no checks.
"""

import inspect
import io
import pickle
import sys

import pandas as pd
import requests


def fetch(source: str) -> io.BytesIO | str:
    if not source.startswith("http"):
        return source
    response = requests.get(source)
    response.raise_for_status()
    return io.BytesIO(response.content)


def main() -> None:
    model, dataset, benchmarks, output = sys.argv[1:]
    file = fetch(model)
    with open(file, "rb") if isinstance(file, str) else file as stream:
        predict = pickle.load(stream)
    data = [pd.read_parquet(fetch(dataset))]
    if len(inspect.signature(predict).parameters) == 2:
        data.append(pd.read_parquet(fetch(benchmarks)))
    predict(*data).to_csv(output)


if __name__ == "__main__":
    main()
