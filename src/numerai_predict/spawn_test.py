import os
import subprocess
import sys

import pytest

from numerai_predict import spawn
from numerai_predict.conftest import ENVIRONMENT


def test_a_file_that_others_cannot_read_keeps_the_user(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python").touch(0o755)
    assert not spawn._open_to_all(str(closed / "python"))
    assert spawn._open_to_all("/usr/bin/env")
    assert spawn._open_to_all(str(tmp_path / "gone"))


def test_starting_the_worker_imports_little():
    code = (
        "import sys; before = set(sys.modules)\n"
        "from numerai_predict import spawn; print(*set(sys.modules) - before)"
    )
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert not {"logging", "argparse", "pathlib", "json"} & set(done.stdout.split())


def test_an_unused_worker_leaves_nothing():
    unused = spawn.Spawned()
    unused.discard()
    assert not os.path.exists(f"/proc/{unused.process.pid}")
    with pytest.raises(OSError):
        os.fstat(unused.output)


def test_users_of_this_namespace():
    assert spawn._is_mapped(os.getuid())
    assert not spawn._is_mapped((1 << 32) - 1)  # no user at all
