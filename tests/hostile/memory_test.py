"""A model that takes more memory than it may is told so, however it takes it."""

import pytest


def grows(live_features):
    hoard = []
    while True:
        hoard.append(bytearray(b"x" * (1 << 24)))


def grows_at_once(live_features):
    import numpy as np

    return np.ones((1 << 12, 1 << 12, 1 << 8))


def allocates_in_c(live_features):
    import ctypes

    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    while True:
        if block := library.malloc(1 << 24):
            ctypes.memset(block, 1, 1 << 24)


def in_children(live_features):
    import os
    import time

    for _ in range(8):
        if os.fork() == 0:
            hoard = bytearray(b"x" * (200 << 20))
            time.sleep(1000)
            print(len(hoard))
    time.sleep(1000)


MODELS = [grows, grows_at_once, allocates_in_c, in_children]


@pytest.mark.places("outside")
@pytest.mark.parametrize("model", MODELS)
def test_with_the_flag(model, attack):
    done = attack(model, "--memory=1GB", "--timeout=250", code=4)
    assert "limit_exceeded: out of memory while predicting" in done.log
    assert "the limit is 1.0 GB" in done.log


@pytest.mark.places("docker", "docker-hardened")
def test_with_the_containers_limit(attack):
    done = attack(grows, code=4, options=("--memory=512m",))
    assert "limit_exceeded: out of memory while predicting" in done.log
    assert "the limit is 512 MB" in done.log
