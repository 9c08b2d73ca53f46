"""The user's model: load it, see how many arguments it takes, call it.

Whatever goes wrong inside the model, `sys.exit` included, becomes a `PredictError`.
"""

from __future__ import annotations

import inspect
import pickle
import re
import sys
from collections.abc import Callable
from typing import IO, Any

import cloudpickle  # noqa: F401  (what pickles of functions import)
import pandas as pd

from numerai_predict.elsewhere import where
from numerai_predict.errors import (
    EnvironmentMismatch,
    LimitExceeded,
    ModelError,
    PredictError,
    model_traceback,
)

Model = Callable[..., Any]

_FORMS = (
    "a model is a function f(live_features) or f(live_features, live_benchmark_models) "
    "that returns a DataFrame; further parameters need defaults"
)
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def load(file: IO[bytes], name: str, traceback_limit: int | None = 8) -> Model:
    """Unpickle a model. This runs its code: only `pickle.load` does what cloudpickle needs.

    Not pandas.read_pickle: it hides the library's version warnings, and on a missing module it
    runs the whole pickle a second time.

    Args:
        file: the pickle.
        name: what to call it in messages.
        traceback_limit: frames of the model's own traceback to keep, None for all.

    Raises:
        ModelError: it is no pickle, fails to load, or is not callable.
        EnvironmentMismatch: it was made for another Python, or imports what is missing here.
        LimitExceeded: there is not enough memory.
    """
    try:
        model = pickle.load(file)
    except BaseException as error:
        raise _load_failure(name, error, model_traceback(error, traceback_limit)) from error
    if not callable(model):
        hint = " (pickle a function that calls its predict method)"
        raise ModelError(
            f"{name} holds a {type_name(model)}, which cannot be called"
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


def call(model: Model, *data: pd.DataFrame, traceback_limit: int | None = 8) -> pd.DataFrame:
    """Call a model.

    Args:
        model: what `load` returned.
        data: live features and, if it takes two arguments, the benchmark models of the same rows.
        traceback_limit: frames of the model's own traceback to keep, None for all.

    Returns:
        The model's DataFrame, not yet checked.

    Raises:
        ModelError: it raised, called `sys.exit`, or returned no DataFrame.
        EnvironmentMismatch: it imports a package that is not installed here.
        LimitExceeded: there is not enough memory.
    """
    try:
        result = model(*data)
    except BaseException as error:
        raise _call_failure(error, model_traceback(error, traceback_limit)) from error
    if not isinstance(result, pd.DataFrame):
        raise ModelError(
            f"the model returned {type_name(result)}, not a pandas DataFrame{_remedy(result)}"
        )
    return result


def _remedy(result: object) -> str:
    if result is None:
        return ": a function without return gives None"
    if isinstance(result, pd.Series):
        return ": return it with .to_frame('prediction')"
    if hasattr(result, "to_pandas"):
        return ": return it with .to_pandas(), indexed by id"
    return ""


def _call_failure(error: BaseException, details: str) -> PredictError:
    """Say what it means that predicting failed this way."""
    if isinstance(error, ModuleNotFoundError):
        return _missing_module(error, details)
    if isinstance(error, MemoryError):
        return LimitExceeded(str(error), details)
    if isinstance(error, SystemExit):
        return ModelError(
            f"the model called sys.exit({error.code!r}); it must return its predictions", details
        )
    message = f"the model raised {type(error).__name__}: {error}"
    if isinstance(error, RecursionError):
        message += f"; it calls itself more than {sys.getrecursionlimit()} times over"
    if isinstance(error, PermissionError):
        message += (
            "; a model has no network, and may write only to its working directory and to "
            "tempfile.gettempdir()"
        )
    return ModelError(message, details)


def _load_failure(name: str, error: BaseException, details: str) -> PredictError:
    """Say what it means that unpickling failed this way."""
    text = str(error)
    if isinstance(error, ModuleNotFoundError):
        return _missing_module(error, details)
    if isinstance(error, MemoryError):
        return LimitExceeded(text, details)
    # Before 3.11 and after, code objects have different fields.
    if isinstance(error, TypeError) and re.match(r"code(\(\)| expected)", text):
        return EnvironmentMismatch(
            f"{name} was not made with Python {_PYTHON}: run it with the image of the Python "
            f"that made it ({text})"
        )
    if isinstance(error, EOFError):
        return ModelError(f"{name} breaks off: not a complete pickle")
    if isinstance(error, ValueError) and "pickle protocol" in text:
        return ModelError(f"{name}: {text}, Python {_PYTHON} reads up to {pickle.HIGHEST_PROTOCOL}")
    if isinstance(error, SystemExit):
        return ModelError(f"{name} called sys.exit({error.code!r}) while being loaded", details)
    if isinstance(error, AttributeError):
        hint = (
            "the function or class is missing in this library version, or was pickled by name: "
            "use cloudpickle.dump, which stores the code itself"
        )
        return ModelError(f"{name} cannot be loaded: {text}; {hint}", details)
    return ModelError(f"{name} cannot be unpickled: {type(error).__name__}: {text}", details)


def _missing_module(error: ModuleNotFoundError, details: str) -> EnvironmentMismatch:
    here = f"in this Python {_PYTHON} environment"
    if error.name is None:  # a library's own words
        return EnvironmentMismatch(f"the model lacks a package {here}: {error}", details)
    package, _, part = error.name.partition(".")
    if part:  # only a package that is here is asked for its parts
        return EnvironmentMismatch(
            f"the model imports {error.name!r}, which the {package!r} {here} does not have "
            f"({error}): it was made with another version",
            details,
        )
    return EnvironmentMismatch(
        f"the model imports {package!r}, which is not installed {here} ({error}): {where(package)}",
        details,
    )


def type_name(thing: object) -> str:
    """The full name of a thing's type; without the module for Python's own."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}".removeprefix("builtins.")
