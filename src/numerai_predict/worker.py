"""The process that loads the model and predicts. It knows no secrets and trusts nobody's pickle.

The launcher (supervisor.py) starts it, gives orders over a channel, and files as open descriptors.
It confines itself first. Up to the message `loading` only this program's own code has run, and the
launcher believes what it says; from then on the model's code could say anything.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from numerai_predict import errors, sandbox
from numerai_predict.channel import Channel, Message

LONGEST = 8_000  # characters of a message, and of a traceback


def main(fd: int) -> None:
    """Do as the launcher says, on the channel `fd`; every failure is a message, too."""
    faulthandler.enable()  # says where a model was when it crashed
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    channel = Channel.accept(socket.socket(fileno=fd))
    orders = Inbox(channel)
    order = orders.get("confine")
    confinement = sandbox.Confinement(**order.fields["confinement"])
    protections = sandbox.confine(confinement, {fd, *orders.fds})
    if confinement.folder:
        os.chdir(confinement.folder)
    os.environ["HOME"] = os.environ["TMPDIR"] = confinement.folder or "/"
    channel.send("confined", protections=protections)
    try:
        if order.fields["inspect"]:
            if lack := inspect(channel, orders.get("model")):
                raise errors.EnvironmentMismatch(lack)
        else:
            predict(channel, orders, None if order.fields["debug"] else 8)
        channel.send("done")
    except errors.PredictError as error:
        message, details = str(error)[:LONGEST], error.details[-LONGEST:]
        channel.send("failure", name=error.name, message=message, details=details)
    channel.receive()  # leave to end in order, with what the model wants done at exit


def inspect(channel: Channel, model: Message) -> str | None:
    """Say what is in a pickle, without loading it. Returns what is missing here, and where it is.

    Raises:
        ModelError: it is no pickle.
        EnvironmentMismatch: it was made for another Python.
    """
    from numerai_predict import inspection

    name = model.fields["name"]
    with open_file(model) as file:
        found = inspection.inspect(file, name)
    report = {**found.to_json(), "table": found.table()}
    channel.send_text("inspected", json.dumps(report).encode())
    if found.fault:
        raise errors.ModelError(f"{name} {found.fault}")
    if mismatch := found.mismatch():
        raise errors.EnvironmentMismatch(f"{name}: {mismatch}")
    return found.lack()


def predict(channel: Channel, orders: Inbox, traceback_limit: int | None) -> None:
    """Read the data, load the model, predict, and send the predictions as CSV.

    Raises:
        PredictError: whatever the model did wrong.
    """
    from numerai_predict import live_data

    # Arrow decodes the live data while pandas is imported.
    reader = ThreadPoolExecutor(1)
    reading = reader.submit(lambda: live_data.read(orders.get("dataset").fds[0]))
    from numerai_predict import inspection, model, predictions

    channel.send("ready")
    reader.shutdown()
    channel.send_text("ids", "\n".join(live_data.ids(reading.result())).encode())
    pickle = orders.get("model")
    inspect(channel, pickle)

    channel.send("loading")
    with open_file(pickle) as file:
        stream, _ = inspection.decompressed(file)
        function = model.load(stream, pickle.fields["name"], traceback_limit)
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


def open_file(message: Message) -> BinaryIO:
    """The file that came with a message, from its beginning."""
    fd = os.dup(message.fds[0])
    os.lseek(fd, 0, os.SEEK_SET)
    return os.fdopen(fd, "rb")


class Inbox:
    """The launcher's orders by their kind, in whatever order they arrive."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._messages: dict[str, Message] = {}

    @property
    def fds(self) -> list[int]:
        """The files of the orders that have arrived."""
        return [fd for message in self._messages.values() for fd in message.fds]

    def get(self, kind: str) -> Message:
        while kind not in self._messages:
            message = self._channel.receive()
            if message is None:
                raise SystemExit("the launcher is gone")
            self._messages[message.kind] = message
        return self._messages[kind]
