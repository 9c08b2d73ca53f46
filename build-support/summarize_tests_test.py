"""What CI's last lines say of the tests."""

from __future__ import annotations

import sys

import pytest

import summarize_tests

TESTS = """
import pytest

def test_good():
    pass

def test_wrong():
    assert [1, 2] == [1, 3], "two\\nlines"

@pytest.mark.skip("no engine")
def test_left_out():
    pass

@pytest.fixture
def broken():
    raise OSError("no space")

def test_unprepared(broken):
    pass
"""


def test_failures_come_last_with_their_reasons(tmp_path, monkeypatch, capsys):
    (tmp_path / "some_test.py").write_text(TESTS)
    pytest.main(
        ["-q", str(tmp_path), f"--junitxml={tmp_path}/report.xml", "-p", "no:cacheprovider"]
    )
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["summarize_tests.py", str(tmp_path)])
    summarize_tests.main()
    skipped, wrong, unprepared, counts = capsys.readouterr().out.splitlines()
    assert skipped.endswith("some_test::test_left_out: no engine")
    assert (
        wrong.startswith("failed ") and "some_test::test_wrong: AssertionError: two lines" in wrong
    )
    assert "some_test::test_unprepared: failed on setup" in unprepared and "no space" in unprepared
    assert counts == "1 passed, 2 failed, 1 skipped"
