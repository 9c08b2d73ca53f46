"""A model that prints without end is stopped, and the log stays short."""

import pytest


def endless(text, fd):
    def model(live_features):
        import os

        while True:
            os.write(fd, text * (1 << 14))

    return model


def from_a_child(live_features):
    import os
    import time

    if os.fork() == 0:
        while True:
            os.write(2, b"child\n" * 1000)
    time.sleep(1000)


@pytest.mark.parametrize(
    "model",
    [endless(b"line\n", 1), endless(b"no end ", 2), endless(b"\n", 1), from_a_child],
    ids=["lines", "one line", "empty lines", "a child"],
)
@pytest.mark.places("docker")
def test_it_is_stopped(model, attack):
    done = attack(model, code=4)
    assert "limit_exceeded: the model printed more than 64.0 MB" in done.log
    assert len(done.log) < 4 << 20
