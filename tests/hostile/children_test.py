"""Processes that a model starts end with the run, however they try to stay."""

import pytest
from hostile.parts import AtLoad, good

STAYED = r"the model started {} process(es) that did not end"


def forks(live_features):
    import os
    import time

    if os.fork() == 0:
        time.sleep(1000)
    return good(live_features)


def forks_twice(live_features):
    import os
    import signal
    import time

    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        for leave in (os.setsid, lambda: os.setpgid(0, 0)):
            try:
                leave()
            except PermissionError:
                pass
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(0)
    os.wait()
    return good(live_features)


def starts_a_program(live_features):
    import subprocess
    import sys

    argv = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(1000)"]
    subprocess.Popen(argv)
    return good(live_features)


def forks_fifty(live_features):
    import os
    import time

    for _ in range(50):
        if os.fork() == 0:
            time.sleep(1000)
    return good(live_features)


@pytest.mark.parametrize("model, count", [(forks_twice, 1), (forks_fifty, 50)])
def test_children_that_stay(model, count, attack):
    assert STAYED.format(count) in attack(model, code=1).log


@pytest.mark.places("outside")
@pytest.mark.parametrize("model", [forks, starts_a_program])
def test_children_of_other_kinds(model, attack):
    assert STAYED.format(1) in attack(model, code=1).log


def fork_and_exit():
    import os
    import time

    if os.fork() == 0:
        os.close(1)
        time.sleep(1000)
    os._exit(0)


def test_a_child_that_outlives_its_parent(attack):
    done = attack(AtLoad(fork_and_exit), code=1)
    assert "the model ended the process itself" in done.log


def bomb(live_features):
    import os

    while True:
        try:
            os.fork()
        except OSError:
            pass


@pytest.mark.places("outside")
def test_a_fork_bomb(attack):
    # The kernel's limit holds for all but root, who meets the launcher's.
    done = attack(bomb, "--timeout=3", code=4)
    assert "out of time" in done.log or "the model started more than" in done.log
