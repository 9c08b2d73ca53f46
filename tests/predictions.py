"""What models predicted: here and now, and where they were trained."""

from pathlib import Path

import pandas as pd


def predicted(folder: Path) -> pd.DataFrame:
    (csv,) = folder.glob("live_predictions-*.csv")
    assert csv.read_text().startswith("id,prediction\n")
    return pd.read_csv(csv, index_col="id")


def expected(folder: Path, model: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{model}.expected.csv", index_col="id")
