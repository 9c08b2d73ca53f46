"""How a run can fail: one class per exit code.

The codes are a contract with whoever starts the predictor: they say whose fault it was, so that
a platform can tell "repeat this" (7, 8, 70) from "tell the modeller" (1, 3, 4, 5, 6).
"""

from __future__ import annotations

import traceback

OK = 0


class PredictError(Exception):
    """A failure that has a name. Its text is the message for the user, without a traceback.

    Args:
        message: what happened and what to do next.
        details: further lines to show below it, for example the model's own traceback.
    """

    code = 70
    name = "internal_error"

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class InternalError(PredictError):
    """A fault of this program."""


class ModelError(PredictError):
    """The model cannot be loaded or called, raised, or returned no DataFrame."""

    code = 1
    name = "model_error"


class UsageError(PredictError):
    """The caller's flags or local files are not usable."""

    code = 2
    name = "usage"


class InvalidPredictions(PredictError):
    """Numerai would not accept the predictions."""

    code = 3
    name = "invalid_predictions"


class LimitExceeded(PredictError):
    """The model took more memory, time, disk or output than it may.

    From a worker: its text is what Python said of memory, the rest is the launcher's to add.
    """

    code = 4
    name = "limit_exceeded"


class Crashed(PredictError):
    """A signal killed the model's process."""

    code = 5
    name = "crashed"


class EnvironmentMismatch(PredictError):
    """The model needs another Python or a package that is not installed here."""

    code = 6
    name = "environment_mismatch"


class DownloadFailed(PredictError):
    """The model or the data cannot be had: refused, expired, cut short or unreachable."""

    code = 7
    name = "download_failed"


class UploadFailed(PredictError):
    """The predictions were not accepted by the upload address; they are still on disk."""

    code = 8
    name = "upload_failed"


class UnreadableData(PredictError):
    """A file of live data or benchmark models is of no use; whoever gave it is to blame."""

    name = "unreadable_data"


BY_NAME: dict[str, type[PredictError]] = {
    kind.name: kind for kind in (InternalError, *PredictError.__subclasses__())
}

# What a model's process may say of itself once the model is loaded: never that others are to blame.
MODELS_OWN = (ModelError, InvalidPredictions, LimitExceeded, EnvironmentMismatch)


def model_traceback(error: BaseException, limit: int | None = 8) -> str:
    """The last `limit` frames (None: all) of the model's own part of a traceback, as text.

    Args:
        error: an exception that was caught in the very function that called the model. That one
            frame is ours and left out.
    """
    frames = error.__traceback__.tb_next if error.__traceback__ else None
    lines = traceback.format_exception(
        type(error), error, frames, limit=None if limit is None else -limit
    )
    return "".join(lines).rstrip()
