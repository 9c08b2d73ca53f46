import os
import subprocess
import sys

import pytest

from numerai_predict import processes
from numerai_predict.conftest import ENVIRONMENT


@pytest.fixture
def leader():
    """A process group of three, one of them in the background."""
    code = "import os, time; os.fork(); os.fork(); print(1, flush=True); time.sleep(1000)"
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE) as process:
        assert process.stdout
        for _ in range(4):
            process.stdout.readline()
        yield process.pid
        processes.kill_group(process.pid)


def test_a_group_and_its_memory(leader):
    pids = processes.group(leader)
    assert len(pids) == 4 and leader in pids
    assert 1 << 20 < processes.memory(pids) < 1 << 30
    assert processes.memory([*pids, 1 << 30]) > 0  # a process that is gone


def test_the_threads_of_a_user(leader):
    assert processes.threads_of(os.getuid()) >= 5
    assert processes.threads_of(4_000_000) == 0


# Starts a group whose members keep forking and leave it, and ends them all.
END = """
import os, subprocess, sys
from numerai_predict import processes
processes.adopt_orphans()
code = '''
import os, time
if os.fork() == 0:
    os.setsid()  # leaves the group
    if os.fork():
        os._exit(0)
    print(os.getpid(), flush=True)
    time.sleep(1000)
print(os.getpid(), flush=True)
time.sleep(1000)
'''
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
print(*(int(child.stdout.readline()) for _ in range(2)))
print(processes.end(child.pid))
"""


def test_nothing_is_left_at_the_end():
    argv = [sys.executable, "-c", END]
    done = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    pids, ended = done.stdout.splitlines()
    assert ended == "True", done.stderr
    for pid in pids.split():
        assert not os.path.exists(f"/proc/{pid}")
