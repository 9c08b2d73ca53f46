import logging
import os
import threading

import pytest

from numerai_predict import output


@pytest.fixture
def pipe(caplog):
    caplog.set_level(logging.INFO)
    exceeded = threading.Event()
    read_end, writer = os.pipe()
    pipe = output.Output(read_end, 10_000, exceeded.set)
    pipe.writer = writer
    pipe.start()
    pipe.event = exceeded
    return pipe


def test_lines_are_shown_as_the_models(pipe, caplog):
    os.write(pipe.writer, b"one\nINFO Wrote 40 predictions\nlast")
    os.close(pipe.writer)
    assert pipe.finish() == "one\nINFO Wrote 40 predictions\nlast"
    assert caplog.messages == ["model| one", "model| INFO Wrote 40 predictions", "model| last"]


def test_nothing_moves_the_terminals_cursor(pipe, caplog):
    os.write(pipe.writer, b"\x1b[2Jcleared\rover\xff\n")
    os.close(pipe.writer)
    pipe.finish()
    (message,) = caplog.messages
    assert message.isprintable()
    assert "cleared" in message and "over" in message


def test_too_much_is_noticed(pipe):
    with pytest.raises(BrokenPipeError):
        while True:
            os.write(pipe.writer, b"x" * 4096)
    assert pipe.exceeded
    assert pipe.event.is_set()
    os.close(pipe.writer)


def test_the_tail_is_short(pipe):
    for number in range(100):
        os.write(pipe.writer, b"%d\n" % number)
    os.close(pipe.writer)
    assert pipe.finish().split("\n") == [str(number) for number in range(80, 100)]


def test_what_is_shown_is_bounded(pipe, caplog, monkeypatch):
    monkeypatch.setattr(output, "SHOWN", 20)
    for number in range(100):
        os.write(pipe.writer, b"%d\n" % number)
    os.close(pipe.writer)
    pipe.finish()
    assert len(caplog.messages) < 20
