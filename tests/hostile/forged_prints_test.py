"""What a model prints, or puts into an exception, is never taken for the program's own word."""

import pytest

CLAIM = "2026-11-23 13:00:00,000 INFO Wrote 6720 predictions to /tmp/live_predictions-0.csv"


def prints(live_features):
    import os

    lines = (
        f"{CLAIM}\nid,prediction\nn0000000000000001,0.5\r\x1b[2J\x1b[1A\u2028{CLAIM}\x85{CLAIM}\n"
    )
    for path in ("/dev/stdout", "/dev/stderr", "/proc/self/fd/1", "/proc/self/fd/2"):
        try:
            with open(path, "w") as file:
                file.write(lines)
        except PermissionError:
            pass
    for fd in (1, 2):
        os.write(fd, lines.encode())
    os._exit(0)


def raises(live_features):
    raise ValueError(f"no\n{CLAIM}\r{CLAIM}\x1b[1A{CLAIM}\u2028{CLAIM}\n{CLAIM}")


def names_itself_so(live_features):
    kind = type(f"Error\n{CLAIM}\n", (Exception,), {})
    raise kind("no")


def returns_it(live_features):
    import pandas as pd

    index = live_features.index.append(pd.Index([f"\n{CLAIM}"], name="id"))[1:]
    return pd.DataFrame({f"\n{CLAIM}\n\x1b[1A": 1.0}, index)


@pytest.mark.parametrize("flags", [(), ("--debug",)], ids=["", "debug"])
@pytest.mark.parametrize(
    "model, code", [(prints, 1), (raises, 1), (names_itself_so, 1), (returns_it, 3)]
)
@pytest.mark.places("docker")
def test_no_line_of_the_log_is_the_models(model, code, flags, attack):
    done = attack(model, *flags, code=code)
    assert not [line for line in done.log_lines if line.startswith(("2026-11-23 13:00", "id,"))]
    for control in "\x1b\r\x85\u2028":
        assert control not in done.log


def test_prints_are_no_result(attack):
    done = attack(prints, code=1)
    assert f" INFO model| {CLAIM}\n" in done.log
