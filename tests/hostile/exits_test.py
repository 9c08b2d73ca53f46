"""A model that ends the process itself is not taken for one that has predicted."""

import os
import signal

import pytest
from hostile.parts import AtLoad, good


def exits_at_once(live_features):
    os._exit(0)


def exits_in_a_thread(live_features):
    import threading

    threading.Thread(target=os._exit, args=(0,)).start()
    threading.Event().wait()


def exits_at_exit(live_features):
    import atexit
    import sys

    atexit.register(os._exit, 0)
    sys.exit(0)


def exits_where_it_may_be_caught(live_features):
    raise SystemExit(0)


def replaces_itself(live_features):
    import sys

    os.execv(sys.executable, [sys.executable, "-c", ""])


def signals(number):
    def model(live_features):
        os.kill(os.getpid(), number)

    return model


def test_os_exit(attack):
    done = attack(exits_at_once, code=1)
    assert "the model ended the process itself, with exit code 0" in done.log


@pytest.mark.places("docker")
@pytest.mark.parametrize(
    "model, says",
    [
        (exits_in_a_thread, "the model ended the process itself, with exit code 0"),
        (exits_at_exit, "the model called sys.exit(0)"),
        (exits_where_it_may_be_caught, "the model called sys.exit(0)"),
        (replaces_itself, "the model ended the process itself, with exit code 0"),
    ],
)
def test_other_ways_out(model, says, attack):
    assert says in attack(model, code=1).log


def sys_exit():
    import sys

    sys.exit(0)


@pytest.mark.places("docker")
@pytest.mark.parametrize(
    "pickle, says",
    [
        (AtLoad(sys_exit), "called sys.exit(0) while being loaded"),
        (b"cposix\n_exit\n(I0\ntR.", "the model ended the process itself, with exit code 0"),
        (b"cbuiltins\nSystemExit\n(I0\ntR.", "which cannot be called"),
    ],
)
def test_while_being_loaded(pickle, says, attack):
    assert says in attack(pickle, code=1).log


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_to_itself(number, attack):
    done = attack(signals(number), code=5)
    assert f"crashed: the model's process was killed by {number.name}" in done.log


def test_a_model_that_stops_itself_is_out_of_time(attack):
    done = attack(signals(signal.SIGSTOP), "--timeout=3", code=4)
    assert "out of time: the model was still predicting after 3 seconds" in done.log


def waits_in_a_thread_that_outlives_it(live_features):
    import threading

    threading.Thread(target=threading.Event().wait).start()
    return good(live_features)


def hangs_at_exit(live_features):
    import atexit
    import time

    atexit.register(time.sleep, 1000)
    return good(live_features)


@pytest.mark.parametrize("model", [waits_in_a_thread_that_outlives_it, hangs_at_exit])
def test_predictions_count_even_if_the_model_would_not_end(model, attack):
    attack(model, code=0)
