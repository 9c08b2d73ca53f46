"""A model that crashes its process is told by which signal."""

import signal

import pytest


def reads_nothing(live_features):
    import ctypes

    ctypes.string_at(0)


def aborts(live_features):
    import os

    os.abort()


def illegal(live_features):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGILL)


def recurses_in_c(live_features):
    import sys

    sys.setrecursionlimit(1 << 30)
    nested: list[object] = []
    for _ in range(1 << 20):
        nested = [nested]
    repr(nested)


@pytest.mark.places("docker")
@pytest.mark.parametrize(
    "model, number",
    [
        (reads_nothing, signal.SIGSEGV),
        (aborts, signal.SIGABRT),
        (illegal, signal.SIGILL),
        (recurses_in_c, signal.SIGSEGV),
    ],
)
def test_the_signal_is_named(model, number, attack):
    done = attack(model, code=5)
    assert f"crashed: the model's process was killed by {number.name}" in done.log
