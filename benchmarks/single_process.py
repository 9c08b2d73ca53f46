"""What the predictor is measured against: the same job as a plain script in one process.

    python3 single_process.py MODEL DATASET BENCHMARKS OUTPUT [POST_URL]

Sources are local files or URLs. No limits, no protection, no checks, no retries.
"""

import inspect
import io
import pickle
import sys

import pandas as pd


def fetch(source: str):
    """A file to read, from wherever it is."""
    if not source.startswith("http"):
        return open(source, "rb")
    import requests  # type: ignore[import-untyped]  # pants: no-infer-dep

    response = requests.get(source, timeout=60)
    response.raise_for_status()
    return io.BytesIO(response.content)


def main() -> None:
    model, dataset, benchmarks, output, *post_url = sys.argv[1:]
    with fetch(model) as file:
        predict = pickle.load(file)
    data = [pd.read_parquet(fetch(dataset))]
    if len(inspect.signature(predict).parameters) == 2:
        data.append(pd.read_parquet(fetch(benchmarks)))
    predict(*data).to_csv(output)
    if post_url:
        import requests  # type: ignore[import-untyped]  # pants: no-infer-dep

        with open(output, "rb") as file:
            requests.post(post_url[0], files={"file": file}, timeout=60).raise_for_status()


if __name__ == "__main__":
    main()
