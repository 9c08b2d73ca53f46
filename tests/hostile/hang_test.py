"""A model that would go on for ever is out of time."""

import pytest
from hostile.parts import AtLoad


def sleeps():
    import signal
    import time

    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass


def sleeps_for_ever(live_features):
    sleeps()


def holds_the_lock(live_features):
    import ctypes

    ctypes.PyDLL(None).sleep(1000)


@pytest.mark.places("outside")
@pytest.mark.parametrize(
    "model, phase",
    [(AtLoad(sleeps), "loading the model"), (holds_the_lock, "predicting")],
    ids=["at load", "with the interpreter's lock"],
)
def test_it_is_out_of_time(model, phase, attack):
    assert f"out of time: the model was still {phase}" in attack(model, "--timeout=2", code=4).log


def test_it_is_out_of_time_everywhere(attack):
    assert "out of time" in attack(sleeps_for_ever, "--timeout=2", code=4).log
