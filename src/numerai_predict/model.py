"""The user's model: load it, see how many arguments it takes, call it.

Whatever goes wrong inside the model, `sys.exit` included, becomes a `PredictError`.
"""

from __future__ import annotations

import bz2
import gzip
import inspect
import lzma
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle  # noqa: F401  (what pickles of functions import)
import pandas as pd

from numerai_predict.errors import (
    EnvironmentMismatch,
    ModelError,
    PredictError,
    UsageError,
    model_traceback,
)

Model = Callable[..., Any]

# Compressed pickles by file name, as pandas.read_pickle has them.
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

_FORMS = (
    "a model is a function f(live_features) or f(live_features, live_benchmark_models) "
    "that returns a DataFrame; further parameters need defaults"
)
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def load(path: Path) -> Model:
    """Unpickle a model. This runs its code: only `pickle.load` does what cloudpickle needs.

    Not pandas.read_pickle: it hides the library's version warnings, and on a missing module it
    runs the whole pickle a second time.

    Raises:
        ModelError: it is no pickle, fails to load, or is not callable.
        EnvironmentMismatch: it was made for another Python, or imports what is missing here.
        UsageError: the file cannot be read.
    """
    try:
        file = _OPENERS.get(path.suffix, open)(path, "rb")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    with file:
        try:
            model = pickle.load(file)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise _load_failure(path, error) from error
    if not callable(model):
        hint = " (pickle a function that calls its predict method)"
        raise ModelError(
            f"{path} holds a {_type_name(model)}, which cannot be called"
            f"{hint if hasattr(model, 'predict') else ''}: {_FORMS}"
        )
    return model


def count_arguments(model: Model) -> int:
    """How many of (live features, benchmark models) a model wants: 1 or 2.

    It gets as many as it requires by position, and both if it has `*args`. Keyword-only and
    defaulted parameters are its author's settings, not places for our data.

    Raises:
        ModelError: it can be called with neither one nor two arguments.
    """
    try:
        parameters = inspect.signature(model).parameters.values()
    except (TypeError, ValueError):
        return 1  # compiled callables may have no signature: try the common form
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    takes_any = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    needs_keyword = [
        p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.default is p.empty
    ]
    if needs_keyword or len(required) > 2 or not (positional or takes_any):
        raise ModelError(f"the model has the signature {inspect.signature(model)}: {_FORMS}")
    return 2 if takes_any or len(required) == 2 else 1


def call(model: Model, *data: pd.DataFrame) -> pd.DataFrame:
    """Call a model.

    Args:
        model: what `load` returned.
        data: live features and, if it takes two arguments, the benchmark models of the same rows.

    Returns:
        The model's DataFrame, not yet checked.

    Raises:
        ModelError: it raised, called `sys.exit`, or returned no DataFrame.
        EnvironmentMismatch: it imports a package that is not installed here.
    """
    try:
        result = model(*data)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        raise _missing_module(error) from error
    except SystemExit as error:
        raise ModelError(
            f"the model called sys.exit({error.code!r}); it must return its predictions",
            model_traceback(error),
        ) from error
    except BaseException as error:
        raise ModelError(
            f"the model raised {type(error).__name__}: {error}", model_traceback(error)
        ) from error
    if not isinstance(result, pd.DataFrame):
        hint = ""
        if result is None:
            hint = ": a function without return gives None"
        elif isinstance(result, pd.Series):
            hint = ": return it with .to_frame('prediction')"
        raise ModelError(f"the model returned {_type_name(result)}, not a pandas DataFrame{hint}")
    return result


def _load_failure(path: Path, error: BaseException) -> PredictError:
    """Say what it means that unpickling failed this way."""
    text = str(error)
    if isinstance(error, ModuleNotFoundError):
        return _missing_module(error)
    # Before 3.11 and after, code objects have different fields.
    if isinstance(error, TypeError) and re.match(r"code(\(\)| expected)", text):
        return EnvironmentMismatch(
            f"{path} was not made with Python {_PYTHON}: run it with the image of the Python "
            f"that made it ({text})"
        )
    details = model_traceback(error)
    if isinstance(error, EOFError):
        size = path.stat().st_size
        what = "is empty" if not size else f"breaks off after {size} bytes"
        return ModelError(f"{path} {what}: not a complete pickle")
    if isinstance(error, ValueError) and "pickle protocol" in text:
        return ModelError(f"{path}: {text}, Python {_PYTHON} reads up to {pickle.HIGHEST_PROTOCOL}")
    if isinstance(error, SystemExit):
        return ModelError(f"{path} called sys.exit({error.code!r}) while being loaded", details)
    if isinstance(error, AttributeError):
        hint = (
            "the function or class is missing in this library version, or was pickled by name: "
            "use cloudpickle.dump, which stores the code itself"
        )
        return ModelError(f"{path} cannot be loaded: {text}; {hint}", details)
    return ModelError(f"{path} cannot be unpickled: {type(error).__name__}: {text}", details)


def _missing_module(error: ModuleNotFoundError) -> EnvironmentMismatch:
    package = (error.name or str(error)).partition(".")[0]
    return EnvironmentMismatch(
        f"the model imports {package!r}, which is not installed in this Python {_PYTHON} "
        f"environment ({error}). If it is your own code, store it in the pickle: "
        f"cloudpickle.register_pickle_by_value({package})",
        model_traceback(error),
    )


def _type_name(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}".removeprefix("builtins.")
