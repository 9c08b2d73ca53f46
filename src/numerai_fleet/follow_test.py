from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from numerai_fleet import collect, follow, verdicts
from numerai_fleet.conftest import Processes
from numerai_fleet.follow import Follow
from numerai_fleet.journal import FolderInUse, Journal, Record
from numerai_fleet.manifest import load
from numerai_fleet.table import Table

RETRIES = 2


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(follow, "BACKOFF", 0)


def followed(manifest: Path, folder: Path, parallel: int = 4) -> tuple[dict[str, Record], str]:
    journal = Journal(folder / "run")
    said = io.StringIO()
    try:
        engine = Processes(folder / "engine", parallel)
        table = Table(RETRIES, Console(file=said))
        return Follow(load(str(manifest)), engine, journal, table, RETRIES).run(), said.getvalue()
    finally:
        journal.close()


def test_each_code_has_its_consequence(manifest, tmp_path):
    codes = [*verdicts.NAMES, 137]
    records, said = followed(manifest({f"m{code}": f"exit {code}" for code in codes}), tmp_path)
    assert {name: record.code for name, record in records.items()} == {
        f"m{code}": code for code in codes
    }
    tries = {code: records[f"m{code}"].tries for code in codes}
    again = 1 + RETRIES
    assert tries == {
        **dict.fromkeys((0, 1, 2, 3, 4, 5, 6), 1),
        **dict.fromkeys((7, 8, 70, 137), again),
    }
    assert "m7: download_failed, is tried again" in said
    assert "m137: lost" in said


def test_a_platforms_fault_heals(manifest, tmp_path):
    records, _ = followed(manifest({"a": "[ $TRY = 1 ] || exit 8"}), tmp_path)
    assert (records["a"].code, records["a"].tries) == (0, 2)


def test_no_more_than_there_is_room_for_run_at_once(manifest, tmp_path):
    count = f"ls {tmp_path}/engine | grep -c '[.]0$' >> {tmp_path}/seen"
    followed(manifest({f"m{number}": count for number in range(9)}), tmp_path, parallel=1)
    assert sorted(map(int, (tmp_path / "seen").read_text().split())) == list(range(1, 10))


SUBMITTER = """
import sys
from pathlib import Path
from numerai_fleet import follow, follow_test
follow.BACKOFF = 0
follow_test.followed(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_submitter_that_was_killed_is_taken_over(manifest, tmp_path):
    """Again and again, until one gets to the end."""
    names = [f"m{number}" for number in range(20)]
    codes = {name: number % 4 for number, name in enumerate(names)}
    path = manifest({name: f"sleep 0.2; exit {code}" for name, code in codes.items()})
    argv = (sys.executable, "-c", SUBMITTER, str(path), str(tmp_path))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    journal = tmp_path / "run/journal.jsonl"
    for ended in (1, 6, 12):
        with subprocess.Popen(argv, env=env) as submitter:
            while not journal.exists() or journal.read_text().count('"ended"') < ended:
                time.sleep(0.01)
                assert submitter.poll() is None
            submitter.send_signal(signal.SIGKILL)
    records, _ = followed(path, tmp_path)
    assert {name: record.code for name, record in records.items()} == codes
    engine = Processes(tmp_path / "engine", 1)
    assert {name: engine.tries(name) for name in names} == dict.fromkeys(names, 1)
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    assert sum(event["event"] == "ended" for event in events) == len(names)


def test_what_is_done_is_not_started_again(manifest, tmp_path):
    path = manifest({"a": "exit 0", "b": "exit 1"})
    followed(path, tmp_path)
    before = (tmp_path / "run/journal.jsonl").read_text()
    followed(path, tmp_path)
    assert (tmp_path / "run/journal.jsonl").read_text() == before


def test_a_line_that_the_machine_did_not_finish_is_left_out(manifest, tmp_path):
    path = manifest({"a": "exit 0"})
    followed(path, tmp_path)
    journal = tmp_path / "run/journal.jsonl"
    whole = journal.read_text()
    journal.write_text(whole + '{"event": "ended", "na')
    assert followed(path, tmp_path)[0]["a"].tries == 1
    assert journal.read_text() == whole


def test_a_folder_has_one_submitter(tmp_path):
    first = Journal(tmp_path)
    with pytest.raises(FolderInUse, match="wait for its end"):
        Journal(tmp_path)
    first.close()
    Journal(tmp_path).close()


def test_rows_tell_what_is_known(manifest, tmp_path):
    path = manifest({"a": "exit 0", "b": "exit 7", "c": "exit 0"})
    records, _ = followed(path, tmp_path)
    del records["c"]
    found = list(collect.rows(load(str(path)), records))
    assert [(row["name"], row["code"], row["verdict"], row["tries"]) for row in found] == [
        ("a", 0, "ok", 1),
        ("b", 7, "download_failed", 3),
        ("c", None, "not run", 0),
    ]
    collect.write(found, tmp_path / "results.parquet")
    assert collect.pq.read_table(tmp_path / "results.parquet").to_pylist() == found
    assert collect.summary(found).startswith("3 models: 1 ok, 1 download_failed, 1 not run\n")
