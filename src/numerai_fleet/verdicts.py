"""What a model's exit code means for the fleet: whose fault it is, and whether to try again.

The codes are the predictor's contract (docs/predict.md).
"""

from __future__ import annotations

NAMES = {
    0: "ok",
    1: "model_error",
    2: "usage",
    3: "invalid_predictions",
    4: "limit_exceeded",
    5: "crashed",
    6: "environment_mismatch",
    7: "download_failed",
    8: "upload_failed",
    70: "internal_error",
}
# Trying again cannot change these: predictions were made, or model or manifest are at fault.
FINAL = frozenset({0, 1, 2, 3, 4, 5, 6})


def name(code: int | None) -> str:
    """`lost` where the predictor did not end by itself: its node or container is gone."""
    return "lost" if code is None else NAMES.get(code, "lost")


def is_final(code: int | None) -> bool:
    return code in FINAL
