"""What the fleet asks of an engine. Scheduling is the engine's own business."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from numerai_fleet.manifest import Model


class Ended(NamedTuple):
    """How one try of a model ended.

    Args:
        name: the model's.
        code: the exit code; None where it was lost with its node or container.
        result: what the predictor's `--result` says, where there is one.
        message: the engine's own words, where there is no result.
        key: the engine's name for this try, by which it is known when it is told once more, to a
            submitter that goes on.
    """

    name: str
    code: int | None
    result: dict[str, Any] | None = None
    message: str = ""
    key: str = ""


class EngineError(Exception):
    """The engine cannot be used; the text says what to do next."""


class Engine(Protocol):
    """All of these concern one run of the fleet. Each may raise EngineError.

    Attributes:
        pause: seconds between two looks at what ended, in proportion to what a look costs; until the next
            one a processor may be idle.
    """

    pause: float

    def running(self) -> set[str]:
        """The models whose tries go on, an earlier submitter's too; not those that `ended` is to tell."""

    def room(self) -> int:
        """How many more may be started now."""

    def start(self, models: Sequence[Model]) -> None:
        """Start these; does not wait for them."""

    def ended(self) -> list[Ended]:
        """Those that ended since this was last asked; the first time, all that ended and are still there:
        of what neither this nor `running` names nobody knows that it ran, and it is started. What was told
        before is noted by now, and can be forgotten."""

    def stop(self) -> None:
        """Cancel all that it has; returns once that has ended, because it may be started anew.

        Raises EngineError: it may not have ended.
        """


def listed(names: Sequence[str]) -> str:
    """The first of these, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"
