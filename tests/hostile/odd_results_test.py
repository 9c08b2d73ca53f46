"""What a model returns is turned into text where the model runs, and harms nobody else."""

import pytest
from hostile.parts import good


def returns(kind):
    def model(live_features):
        import os
        import time

        import pandas as pd

        class Cell:
            def __init__(self, does):
                self.does = does

            def __str__(self):
                return self.does()

            __repr__ = __str__

        class Frame(pd.DataFrame):
            def to_csv(self, *arguments, **settings):
                return settings

            def __reduce__(self):
                return os._exit, (0,)

        class Liar(pd.DataFrame):
            to_csv = property(lambda self: os._exit(0))

        if kind == "generator":
            return (row for row in live_features)
        if kind == "frame":
            return Frame(good(live_features))
        if kind == "liar":
            return Liar(good(live_features))
        frame = good(live_features).astype(object)
        values = {
            "raises": Cell(lambda: 1 / 0),
            "sleeps": Cell(lambda: time.sleep(1000)),
            "exits": Cell(lambda: os._exit(0)),
            "quits": Cell(lambda: exec("raise SystemExit(0)")),
            "huge": "x" * (200 << 20),
        }
        frame.iloc[0, 0] = values[kind]
        return frame

    return model


@pytest.mark.places("outside")
@pytest.mark.parametrize(
    "kind, code, says",
    [
        ("generator", 1, "the model returned generator, not a pandas DataFrame"),
        ("frame", 1, "model_error"),
        ("liar", 1, "the model ended the process itself, with exit code 0"),
        ("raises", 1, "cannot be written as CSV"),
        ("sleeps", 4, "out of time"),
        ("exits", 1, "the model ended the process itself, with exit code 0"),
        ("quits", 1, "the model ended the process itself, with exit code 0"),
        ("huge", 4, "the model returned 200 MB of predictions"),
    ],
)
def test_odd_results(kind, code, says, attack):
    assert says in attack(returns(kind), "--timeout=10", code=code).log


def a_million_strangers(live_features):
    import pandas as pd

    frame = good(live_features)
    return pd.concat(
        [frame, pd.DataFrame({"prediction": 0.5}, pd.Index(range(1_000_000), name="id"))]
    )


@pytest.mark.places("outside")
def test_rows_of_other_ids_are_dropped(attack):
    done = attack(a_million_strangers, code=0)
    (csv,) = done.output_dir.iterdir()
    assert len(csv.read_text().splitlines()) == 201
