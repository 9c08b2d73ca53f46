import functools
import io
import pickle
import sys
import types

import cloudpickle
import pandas as pd
import pytest

from numerai_predict import model
from numerai_predict.errors import ModelError, PredictError

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def good(x):
    return x["feature_a"].rank(pct=True, method="first").to_frame("prediction")


class Callable:
    def __call__(self, x):
        return good(x)

    def method(self, x, benchmarks):
        return good(x)


def wrapped():
    @functools.wraps(good)
    def wrapper(*args, **kwargs):
        return good(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    "function, arguments",
    [
        (lambda x: 0, 1),
        (lambda x, y: 0, 2),
        (lambda x, y, z=0: 0, 2),
        (lambda x, feats=None: 0, 1),
        (lambda x=None: 0, 1),
        (lambda x, *, verbose=False: 0, 1),
        (lambda x, **settings: 0, 1),
        (lambda *args: 0, 2),
        (lambda x, *args: 0, 2),
        (functools.partial(lambda x, feats: 0, feats=3), 1),
        (functools.partial(lambda settings, x, y: 0, {}), 2),
        (Callable(), 1),
        (Callable().method, 2),
        (wrapped(), 1),
        (pd.Series().to_frame().corrwith, 1),
        (dict.fromkeys, 1),
    ],
)
def test_a_model_gets_as_many_arguments_as_its_author_meant(function, arguments):
    assert model.count_arguments(function) == arguments


@pytest.mark.parametrize(
    "function",
    [lambda: 0, lambda x, y, z: 0, lambda x, *, era: 0, lambda **settings: 0],
)
def test_other_signatures_are_refused_with_the_accepted_forms(function):
    with pytest.raises(ModelError, match=r"f\(live_features\) or f\(live_features, live_bench"):
        model.count_arguments(function)


LIVE = pd.DataFrame({"feature_a": [0, 1, 2]}, index=pd.Index(["n1", "n2", "n3"], name="id"))


FULL_IMAGE = "numerai_predict_py_{}_{}_full".format(*sys.version_info)


def load(content: bytes):
    return model.load(io.BytesIO(content), "model.pkl")


@pytest.mark.parametrize("callable_", [good, functools.partial(good), Callable(), wrapped()])
def test_all_kinds_of_callables_predict(callable_):
    loaded = load(cloudpickle.dumps(callable_))
    assert model.count_arguments(loaded) == 1
    pd.testing.assert_frame_equal(model.call(loaded, LIVE), good(LIVE))


class RaisesWhenLoaded:
    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


def old_code_object():
    """Unpickles as a function of another Python does: with another number of fields."""
    return RaisesWhenLoaded(types.CodeType, *range(30))


def asks_for_more():
    raise ModuleNotFoundError("Install v2.0 of a package.")


def no_memory():
    raise MemoryError("no room")


@pytest.mark.parametrize(
    "content, code, says",
    [
        (b"", 1, "breaks off"),
        (pickle.dumps([1, 2])[:-3], 1, "cannot be unpickled"),
        (b"<html>", 1, "cannot be unpickled: UnpicklingError"),
        (b"\x80\x09.", 1, "unsupported pickle protocol: 9, Python 3"),
        (pickle.dumps(42), 1, "holds a int, which cannot be called"),
        (pickle.dumps(pd.Series([1])), 1, "holds a pandas.core.series.Series"),
        (b"cnumerai_predict\ngone\n.", 1, "use cloudpickle.dump"),
        (b"cpackage_that_is_gone.part\nmodel\n.", 6, "'package_that_is_gone', which is not inst"),
        (b"cpackage_that_is_gone\nmodel\n.", 6, "no image has it. If it is your own code, store"),
        (b"cpandas.of_another_version\nmodel\n.", 6, "'pandas' in this Python 3"),
        (b"ctorch.nn\nLinear\n.", 6, f"(No module named 'torch'): {FULL_IMAGE} has it"),
        (cloudpickle.dumps(old_code_object()), 6, "was not made with Python 3."),
        (cloudpickle.dumps(RaisesWhenLoaded(sys.exit, 0)), 1, "sys.exit(0) while being loaded"),
        (cloudpickle.dumps(RaisesWhenLoaded(int, "x")), 1, "ValueError: invalid literal"),
        (cloudpickle.dumps(RaisesWhenLoaded(asks_for_more)), 6, "environment: Install v2.0 of a"),
        (cloudpickle.dumps(RaisesWhenLoaded(no_memory)), 4, "no room"),
    ],
)
def test_files_that_hold_no_usable_model(content, code, says):
    with pytest.raises(PredictError) as failure:
        load(content)
    assert failure.value.code == code
    assert says in str(failure.value)


def raises(x):
    raise ValueError("no such feature")


def imports(x):
    import package_that_is_gone.part  # noqa: F401  # pants: no-infer-dep


def imports_torch(x):
    import torch  # noqa: F401  # pants: no-infer-dep


def exits(x):
    sys.exit(0)


def recurses(x):
    return recurses(x)


def stops(x):
    raise GeneratorExit("stop")


def writes(x):
    raise PermissionError("/etc/passwd")


def fills(x):
    raise MemoryError("no room")


class OfAnotherLibrary:
    def to_pandas(self):
        return LIVE


@pytest.mark.parametrize(
    "function, code, says",
    [
        (raises, 1, "the model raised ValueError: no such feature"),
        (exits, 1, "the model called sys.exit(0)"),
        (recurses, 1, "the model raised RecursionError"),
        (stops, 1, "the model raised GeneratorExit"),
        (writes, 1, "may write only to its working directory"),
        (fills, 4, "no room"),
        (imports, 6, "imports 'package_that_is_gone', which is not installed"),
        (imports_torch, 6, f"{FULL_IMAGE} has it"),
        (lambda x: None, 1, "the model returned NoneType, not a pandas DataFrame: a function with"),
        (lambda x: x["feature_a"], 1, "return it with .to_frame('prediction')"),
        (lambda x: x["feature_a"].to_numpy(), 1, "the model returned numpy.ndarray"),
        (lambda x: OfAnotherLibrary(), 1, "return it with .to_pandas()"),
    ],
)
def test_models_that_fail_while_predicting(function, code, says):
    with pytest.raises(PredictError) as failure:
        model.call(function, LIVE)
    assert failure.value.code == code
    assert says in str(failure.value)
    if failure.value.details:
        assert f"in {function.__name__}" in failure.value.details
        assert "numerai_predict/model.py" not in failure.value.details


def test_a_traceback_has_as_many_frames_as_asked_for():
    def deep(depth):
        return deep(depth - 1) if depth else raises(LIVE)

    def outermost(x):
        return deep(20)

    def details(limit):
        with pytest.raises(PredictError) as failure:
            model.call(outermost, LIVE, traceback_limit=limit)
        return failure.value.details

    assert "in outermost" not in details(8)
    assert "in outermost" in details(None)
    assert "in raises" in details(8)
