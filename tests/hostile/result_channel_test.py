"""A model that writes to the channel of its result gets nothing accepted by that."""

from typing import Any

import pytest
from hostile.parts import good

FORGED = "the model wrote to the channel by which its result is returned"


def writes(packets, then="predicts"):
    """Writes to whatever it finds open."""

    def model(live_features):
        import os
        import time

        for fd in range(3, 64):
            for packet in packets:
                try:
                    os.write(fd, packet)
                except OSError:
                    pass
        if then == "exits":
            os._exit(0)
        if then == "waits":
            time.sleep(1000)
        return good(live_features)

    return model


CSV = b"id,prediction\n" + b"".join(b"n%016x,0.%03d\n" % (n, n) for n in range(200))
RESULT = [b'["predictions", {"size": %d}]' % len(CSV), CSV, b'["done", {}]']
PACKETS = {
    "junk": [b"\xff" * 1000],
    "a result": RESULT,
    "a result, with some token": [b"0" * 16 + packet for packet in RESULT],
    "an empty packet": [b""],
    "a long packet": [b"[" * 200_000],
    "deep JSON": [b"[" * 60_000],
}


@pytest.mark.places("outside")
@pytest.mark.parametrize("packets", PACKETS.values(), ids=PACKETS)
def test_what_lacks_the_token(packets, attack):
    assert FORGED in attack(writes(packets), code=1).log


@pytest.mark.places("docker")
@pytest.mark.parametrize("then", ["exits", "waits"])
def test_a_forged_result_counts_for_nothing_whatever_follows(then, attack):
    assert FORGED in attack(writes(RESULT, then), code=1).log


def closes_everything(live_features):
    import os
    import time

    os.closerange(3, 64)
    time.sleep(1000)


def shuts_down(live_features):
    import socket
    import time

    for fd in range(3, 64):
        try:
            socket.socket(fileno=fd).shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
    time.sleep(1000)


@pytest.mark.parametrize("model", [closes_everything, shuts_down])
def test_closing_it_is_no_way_to_hang(model, attack):
    assert FORGED in attack(model, code=1).log


def passes_files(live_features):
    import os
    import socket

    for fd in range(3, 64):
        try:
            end = socket.socket(fileno=os.dup(fd))
            for _ in range(100):
                socket.send_fds(end, [b"files"], list(range(3)) * 80)
        except OSError:
            pass
    return good(live_features)


@pytest.mark.places("outside")
def test_files_are_not_taken(attack):
    assert FORGED in attack(passes_files, code=1).log


def sends(*messages):
    """Has the worker's own channel, with the token, from the frames that called it."""

    def model(live_features):
        import sys

        frame: Any = sys._getframe()
        while "channel" not in frame.f_locals:
            frame = frame.f_back
        channel = frame.f_locals["channel"]
        for kind, fields, *chunks in messages:
            channel.send(kind, **fields)
            for chunk in chunks:
                channel.socket.sendall(channel._token + chunk)
        return good(live_features)

    return model


def failure(name):
    return ("failure", {"name": name, "message": "not me", "details": "the platform"})


@pytest.mark.places("outside")
@pytest.mark.parametrize(
    "name", ["download_failed", "upload_failed", "internal_error", "usage", "crashed", "?"]
)
def test_a_failure_cannot_be_put_down_to_others(name, attack):
    done = attack(sends(failure(name)), code=1)
    assert FORGED in done.log
    assert "not me" not in done.log


@pytest.mark.places("outside")
def test_nor_from_a_model_of_two_arguments(attack, tmp_path):
    attacker = sends(failure("unreadable_data"))
    done = attack(
        lambda live_features, benchmarks: attacker(live_features),
        f"--benchmarks={tmp_path}/live.parquet",
        code=1,
    )
    assert FORGED in done.log


TEXTS = {
    "no text": (1, "model_error", [("done", {})]),
    "no size": (1, "model_error", [("predictions", {})]),
    "negative": (1, "model_error", [("predictions", {"size": -1})]),
    "not a number": (1, "model_error", [("predictions", {"size": [1]})]),
    "enormous": (4, "limit_exceeded", [("predictions", {"size": 10**18})]),
    "empty": (3, "invalid_predictions", [("predictions", {"size": 0}), ("done", {})]),
    "no CSV": (3, "invalid_predictions", [("predictions", {"size": 2}, b"\xff\0"), ("done", {})]),
    "too long": (1, "model_error", [("predictions", {"size": 2}, b"abc")]),
    "too short": (1, "model_error", [("predictions", {"size": 9}, b"abc")]),
    "empty chunk": (1, "model_error", [("predictions", {"size": 9}, b"")]),
    "in small pieces": (1, "model_error", [("predictions", {"size": 9}, *[b"a"] * 9)]),
}


@pytest.mark.places("outside")
@pytest.mark.parametrize("code, name, messages", TEXTS.values(), ids=TEXTS)
def test_its_own_text_is_checked(code, name, messages, attack):
    assert f"{name}: " in attack(sends(*messages), code=code).log


def trickles(live_features):
    """Sends what is expected, but never so slowly that nothing is there to be read."""
    import sys

    frame: Any = sys._getframe()
    while "channel" not in frame.f_locals:
        frame = frame.f_back
    channel = frame.f_locals["channel"]
    import time

    channel.send("predictions", size=15 << 20)
    while True:
        channel.socket.sendall(channel._token + b"a" * (1 << 16))
        time.sleep(0.02)


@pytest.mark.places("outside")
def test_a_slow_text_is_out_of_time(attack):
    assert "out of time" in attack(trickles, "--timeout=3", code=4).log
