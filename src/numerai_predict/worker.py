"""The process that loads the model and predicts. It knows no secrets and trusts nobody's pickle.

The launcher (supervisor.py) starts it, gives orders over a channel, and files as open descriptors.
It confines itself first. Up to the message `loading` only this program's own code has run, and the
launcher believes what it says; from then on the model's code could say anything.
"""

from __future__ import annotations

import bz2
import faulthandler
import gzip
import json
import lzma
import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from numerai_predict import errors, sandbox
from numerai_predict.channel import Channel, Message

LONGEST = 8_000  # characters of a message, and of a traceback

# Compressed pickles by file name, as pandas.read_pickle has them.
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def main(fd: int) -> None:
    """Do as the launcher says, on the channel `fd`; every failure is a message, too."""
    faulthandler.enable()  # says where a model was when it crashed
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    channel = Channel.accept(socket.socket(fileno=fd))
    orders = Inbox(channel)
    order = orders.get("confine")
    protections = sandbox.confine(sandbox.Confinement(**order.fields["confinement"]), fd)
    channel.send("confined", protections=protections)
    try:
        if order.fields["inspect"]:
            inspect(channel, orders.get("model"))
        else:
            predict(channel, orders, None if order.fields["debug"] else 8)
        channel.send("done")
    except errors.PredictError as error:
        texts = {"message": str(error)[:LONGEST], "details": error.details[-LONGEST:]}
        channel.send("failure", name=error.name, **texts)
    channel.receive()  # leave to end in order, with what the model wants done at exit


def inspect(channel: Channel, model: Message) -> None:
    """Say what is in a pickle, without loading it.

    Raises:
        EnvironmentMismatch: it was made for another Python.
    """
    from numerai_predict import inspection

    with open_pickle(model) as file:
        found = inspection.inspect(file, model.fields["name"])
    report = {**found.to_json(), "table": found.table()}
    channel.send_text("inspected", json.dumps(report).encode())
    if mismatch := found.mismatch():
        raise errors.EnvironmentMismatch(mismatch)


def predict(channel: Channel, orders: Inbox, traceback_limit: int | None) -> None:
    """Read the data, load the model, predict, and send the predictions as CSV.

    Raises:
        PredictError: whatever the model did wrong.
    """
    from numerai_predict import live_data

    # Arrow decodes the live data while pandas is imported.
    reader = ThreadPoolExecutor(1)
    reading = reader.submit(lambda: live_data.read(orders.get("dataset").fds[0]))
    from numerai_predict import model, predictions

    channel.send("ready")
    reader.shutdown()
    channel.send_text("ids", "\n".join(live_data.ids(reading.result())).encode())
    inspect(channel, orders.get("model"))

    channel.send("loading")
    with open_pickle(orders.get("model")) as file:
        function = model.load(file, orders.get("model").fields["name"], traceback_limit)
    arguments = model.count_arguments(function)
    channel.send("loaded", arguments=arguments)
    features = live_data.to_frame(reading.result())
    del reading  # Arrow's copy
    benchmarks = None
    if arguments == 2:
        benchmarks = live_data.to_frame(live_data.read(orders.get("benchmarks").fds[0]))
        live_data.check_same_rows(features, benchmarks)

    channel.send("predicting")
    live_ids = features.index  # kept apart: the model may change its input in place
    parts = [
        model.call(function, *data, traceback_limit=traceback_limit)
        for data in live_data.by_era(features, benchmarks)
    ]
    channel.send_text("predictions", predictions.to_csv(parts, live_ids))


def open_pickle(model: Message) -> IO[bytes]:
    """The model's file from its beginning, decompressed as its name says."""
    fd = os.dup(model.fds[0])
    os.lseek(fd, 0, os.SEEK_SET)
    opener = _OPENERS.get(os.path.splitext(model.fields["name"])[1])
    file = os.fdopen(fd, "rb")
    return opener(file) if opener else file


class Inbox:
    """The launcher's orders by their kind, in whatever order they arrive."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._messages: dict[str, Message] = {}

    def get(self, kind: str) -> Message:
        while kind not in self._messages:
            message = self._channel.receive()
            if message is None:
                raise SystemExit("the launcher is gone")
            self._messages[message.kind] = message
        return self._messages[kind]
