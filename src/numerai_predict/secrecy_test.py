import logging
import os
import subprocess
import sys

import pytest

from numerai_predict import cli, secrecy
from numerai_predict.conftest import ENVIRONMENT

# Hides, then prints what /proc shows of itself, and what it still knows.
SHOW = """
import os, sys
from pathlib import Path
from numerai_predict import secrecy
before = Path("/proc/self/environ").read_bytes()
secrecy.hide()
for name in ("cmdline", "environ"):
    try:
        print(name, Path(f"/proc/self/{name}").read_bytes())
    except PermissionError as error:
        print(name, error)
print("known", sys.argv[1], os.environ["SECRET"], os.environ["PATH"] != "", b"s3cret" in before)
"""


@pytest.fixture(scope="module")
def shown():
    done = subprocess.run(
        [sys.executable, "-c", SHOW, "--post_data=s3cret"],
        env={**ENVIRONMENT, "SECRET": "s3cret", "EMPTY": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


def test_proc_does_not_show_the_arguments(shown):
    assert shown["cmdline"].startswith("b'numerai_predict\\x00")
    assert "s3cret" not in shown["cmdline"]


def test_proc_does_not_show_the_environment(shown):
    assert "s3cret" not in shown["environ"]


def test_the_process_itself_still_knows_them(shown):
    assert shown["known"] == "--post_data=s3cret s3cret True True"


def test_an_emulator_that_does_not_say_where_the_arguments_lie_is_named():
    # qemu's user emulation shows the first 44 fields of /proc/self/stat.
    code = (
        "from unittest import mock\nfrom numerai_predict import secrecy\n"
        "stat = b'1 (python3) ' + b'0 ' * 42\n"
        "with mock.patch.object(secrecy.Path, 'read_bytes', lambda self: stat):\n"
        "    print(secrecy.hide())"
    )
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True)
    assert "emulator" in done.stdout, done.stderr


def test_a_value_can_be_in_a_file(tmp_path):
    (tmp_path / "secret").write_text("key=s3cret\n")
    assert secrecy.resolve(f"@{tmp_path}/secret") == "key=s3cret"
    assert secrecy.resolve("key=s3cret") == "key=s3cret"


def test_a_value_can_be_in_the_environment(monkeypatch):
    monkeypatch.setenv("NUMERAI_PREDICT_POST_DATA", "key=s3cret")
    assert secrecy.environment_value("post_data") == "key=s3cret"
    assert secrecy.environment_value("post_url") is None


def test_other_processes_of_the_user_cannot_look_into_this_one():
    code = (
        "import os, sys\nfrom numerai_predict import secrecy\nsecrecy.hide()\n"
        "print('hidden', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=ENVIRONMENT, text=True, stdin=pipe, stdout=pipe) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "hidden\n"
        owner = os.stat(f"/proc/{process.pid}/environ").st_uid
        process.stdin.close()
    assert owner == 0


def test_what_is_secret_of_addresses_and_forms():
    secrets = secrecy.secrets_of(
        "key=of/user.csv&policy=s3cret%2B%3D", "https://user:passw0rd@host/model.pkl?sign=s3cret2"
    )
    assert {"sign=s3cret2", "s3cret2", "user:passw0rd", "s3cret+=", "s3cret%2B%3D"} <= set(secrets)
    assert not any(text in "https://host/model.pkl key sign policy" for text in secrets)
    assert secrets == sorted(secrets, key=len, reverse=True)


def test_the_log_leaves_secrets_out_even_of_what_nobody_foresaw(capsys):
    cli.set_up_log(debug=False, secrets=["sign=s3cret2", "s3cret2"])
    try:
        raise ValueError("bad URL: https://host/?sign=s3cret2")
    except ValueError:
        logging.getLogger("numerai_predict").exception("s3cret2")
    finally:
        logging.basicConfig(force=True)
    log = capsys.readouterr().err
    assert "s3cret2" not in log
    assert "bad URL: https://host/?[secret]" in log
