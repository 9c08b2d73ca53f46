"""Functions such as users pickle, to be pickled by every Python since 3.8.

    python inspection_corpus.py OUTPUT_DIR

One pickle each. This needs cloudpickle, and runs under the oldest Python as it is.
"""

import asyncio
import contextlib
import functools
import operator
import os
import sys

import cloudpickle

WEIGHTS = {"feature_a": 0.5, "feature_b": 0.25}

# Bytecode of these tells too little to name one Python.
TRIVIAL = ["identity", "nothing", "plus_one"]


def identity(x):
    return x


def nothing(x):
    pass


def plus_one(x):
    return x + 1


def attribute_calls(live_features):
    return live_features["feature_a"].rank(pct=True, method="first").to_frame("prediction")


def two_arguments(live_features, live_benchmark_models):
    blend = live_features["feature_a"] / 2 + live_benchmark_models["v52_lgbm"] * 0.5
    return blend.rank(pct=True).to_frame("prediction")


def loop(x):
    total = 0.0
    for name, weight in WEIGHTS.items():
        if name not in x:
            continue
        total += x[name] * weight
    else:
        total -= 1
    while total > 1:
        total /= 2
    return total


def comprehensions(x):
    names = [name for name in x if name.startswith("feature_")]
    pairs = {name: x[name] for name in names}
    return sorted({round(value, 3) for value in pairs.values()})


def try_except(x):
    try:
        return x["prediction"]
    except (KeyError, TypeError) as error:
        return str(error)
    finally:
        x.clear()


def texts(x):
    return f"{x!r:>10} of {len(x)} {x.shape[0]:.2f}%"


def with_block(path):
    with open(path) as file, contextlib.suppress(ValueError):
        return file.read()


def generator(x):
    yield from x
    got = yield len(x)
    return got


async def coroutine(x):
    async with x as opened:
        return [item async for item in opened if await item]


async def asynchronous_generator(x):
    async for item in x:
        await asyncio.sleep(0)
        yield item


def nested(x):
    def scale(value, by=2.0):
        return value * by

    return list(map(scale, x))


def closure():
    factor, offset = 2, 1

    def predict(x):
        nonlocal offset
        offset += 1
        return x * factor + offset

    return predict


def keywords(x, *args, ddof=1, **settings):
    return functools.partial(x.apply, *args, ddof=ddof, **settings)(axis=0, raw=True)


def comparisons(x, low=0, high=1):
    if x is None or not low <= x < high:
        raise ValueError(x)
    assert x not in (3, 4), "not these"
    return x if x >= 0.5 else -x


def slices(x):
    first, *rest = x[1:-1]
    x[0], x[1] = x[1], x[0]
    del x[2]
    return first, rest, [1, 2, 3], {"a": 1, **x}, (*rest, 4)


def imports(x):
    import numpy as np
    from scipy.stats import norm

    return np.clip(norm.ppf(x), -3, 3)


def lambdas(x):
    return sorted(x, key=lambda pair: (-pair[1], pair[0]))


def walrus(x):
    return [half for value in x if (half := value / 2) > 0.1]


def annotated(x: "list[float]", scale: float = 1.0) -> "list[float]":
    shift: float = 0.5
    return [value * scale + shift for value in x]


def logic(x, y):
    return (x and y) or (not x and y is not None) or x != y


def big(x):
    """More constants and a longer jump than fit one byte."""
    if x:
        x = (x + 1000) * 1001 - 1002 + 1003 * 1004 - x * 1005 + x * 1006 - x * 1007 + x * 1008
        x = x.a1 + x.a2 + x.a3 + x.a4 + x.a5 + x.a6 + x.a7 + x.a8 + x.a9 + x.b1 + x.b2 + x.b3 + x.b4
        x = [x.c1(x), x.c2(x), x.c3(x), x.c4(x), x.c5(x), x.c6(x), x.c7(x), x.c8(x), x.c9(x), x.d1]
        x = [x.e1(x), x.e2(x), x.e3(x), x.e4(x), x.e5(x), x.e6(x), x.e7(x), x.e8(x), x.e9(x), x.f1]
        x = [x.g1(x), x.g2(x), x.g3(x), x.g4(x), x.g5(x), x.g6(x), x.g7(x), x.g8(x), x.g9(x), x.h1]
        x = [x.i1(x), x.i2(x), x.i3(x), x.i4(x), x.i5(x), x.i6(x), x.i7(x), x.i8(x), x.i9(x), x.j1]
    return x


class Model:
    """A class by value, with all that classes have."""

    scale = 2

    def __init__(self, names):
        super().__init__()
        self.names = names

    def __call__(self, x):
        return self.predict(x[self.names])

    @property
    def size(self):
        return len(self.names)

    @classmethod
    def make(cls, *names):
        return cls(list(names))

    @staticmethod
    def predict(x):
        return x.mean(axis=1)


def often_called():
    """A function whose bytecode the interpreter has adapted to its arguments."""

    def predict(x):
        return [value for value in x.values() if value > 0.5 and len(x) < 3]

    for _ in range(2000):
        predict(WEIGHTS)
    return predict


def traced():
    """A function that was pickled while a debugger or a measurement of coverage was at work."""

    def predict(x):
        return [value for value in x.values() if value > 0.5 and len(x) < 3]

    def tracer(*event):
        return tracer

    sys.settrace(tracer)
    predict(WEIGHTS)
    pickled = cloudpickle.dumps(predict)
    sys.settrace(None)
    return pickled


def corpus():
    functions = [
        *(identity, nothing, plus_one, attribute_calls, two_arguments, loop, comprehensions),
        *(try_except, texts, with_block, generator, coroutine, asynchronous_generator, nested),
        *(keywords, comparisons, slices, imports, lambdas, walrus, annotated, logic, big),
    ]
    found: dict[str, object] = {function.__name__: function for function in functions}
    found["closure"] = closure()
    found["often_called"] = often_called()
    found["instance"] = Model(["feature_a"])
    found["method"] = Model(["feature_a"]).predict
    found["partial"] = functools.partial(two_arguments, live_benchmark_models=None)
    found["by_name"] = operator.itemgetter("prediction")
    return found


def main():
    pickles = {name: cloudpickle.dumps(function) for name, function in corpus().items()}
    pickles["traced"] = traced()
    for name, content in pickles.items():
        with open(os.path.join(sys.argv[1], name + ".pkl"), "wb") as file:
            file.write(content)


if __name__ == "__main__":
    main()
