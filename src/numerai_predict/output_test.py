import logging
import os
import threading
from typing import NamedTuple

import pytest

from numerai_predict import output


class Pipe(NamedTuple):
    output: output.Output
    write_end: int
    exceeded: threading.Event

    def finish(self) -> str:
        os.close(self.write_end)
        return self.output.finish()


@pytest.fixture
def pipe(caplog):
    caplog.set_level(logging.INFO)
    exceeded = threading.Event()
    read_end, write_end = os.pipe()
    reader = output.Output(read_end, 10_000, exceeded.set)
    reader.start()
    return Pipe(reader, write_end, exceeded)


def test_lines_are_shown_as_the_models(pipe, caplog):
    os.write(pipe.write_end, b"one\nINFO Wrote 40 predictions\nlast")
    assert pipe.finish() == "one\nINFO Wrote 40 predictions\nlast"
    assert caplog.messages == ["model| one", "model| INFO Wrote 40 predictions", "model| last"]


def test_nothing_moves_the_terminals_cursor(pipe, caplog):
    os.write(pipe.write_end, b"\x1b[2Jcleared\rover\xff\n")
    pipe.finish()
    (message,) = caplog.messages
    assert message.isprintable()
    assert "cleared" in message and "over" in message


def test_too_much_is_noticed(pipe):
    with pytest.raises(BrokenPipeError):
        while True:
            os.write(pipe.write_end, b"x" * 4096)
    assert pipe.output.exceeded
    assert pipe.exceeded.is_set()
    pipe.finish()


def test_the_tail_is_short(pipe):
    for number in range(100):
        os.write(pipe.write_end, b"%d\n" % number)
    assert pipe.finish().split("\n") == [str(number) for number in range(80, 100)]


def test_what_is_shown_is_bounded(pipe, caplog, monkeypatch):
    monkeypatch.setattr(output, "SHOWN", 20)
    for number in range(100):
        os.write(pipe.write_end, b"%d\n" % number)
    pipe.finish()
    assert len(caplog.messages) < 20
