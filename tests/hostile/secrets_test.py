"""A model finds no secret of the launcher's, however that was given it, nor does the log tell."""

import json
import os

import pytest
from hostile.parts import AtLoad

SECRET = "s3cret" + os.urandom(8).hex()
URL = f"http://127.0.0.1:9/bucket?X-Amz-Signature={SECRET}"
FIELDS = f"key=predictions.csv&policy={SECRET}&x-amz-signature={SECRET}"


def searches(reversed_secret, attaches=True):
    """A model that raises with the places where it saw the secret, which is not in its pickle.

    Attaching to its parent stops that one.
    """

    def search():
        import ctypes
        import gc
        import os
        import sys

        found, memories = [], []
        backwards = reversed_secret.encode()
        size, start_of_it = len(backwards), backwards[-6:][::-1]

        def look(place, text):
            # Without making the secret itself: the search would find its own.
            at = text.find(start_of_it)
            while at >= 0:
                if text[at : at + size][::-1] == backwards:
                    found.append(place)
                    break
                at = text.find(start_of_it, at + 1)

        for pid in filter(str.isdigit, os.listdir("/proc")):
            for name in ("cmdline", "environ", "stack", "auxv", "maps", "comm", "status"):
                try:
                    with open(f"/proc/{pid}/{name}", "rb") as file:
                        look(f"/proc/{pid}/{name}", file.read())
                except OSError:
                    continue
            if int(pid) == os.getpid():
                continue
            try:
                os.listdir(f"/proc/{pid}/fd")
                open(f"/proc/{pid}/mem", "rb").close()
                memories.append(pid)
            except OSError:
                continue
        launcher = os.getppid()
        if str(launcher) in memories:
            found.append("the launcher's memory")
        for name in ("ptrace", "process_vm_readv", "prctl") if attaches else ():
            arguments = {
                "ptrace": (16, launcher, 0, 0),  # PTRACE_ATTACH
                "process_vm_readv": (launcher, 0, 0, 0, 0, 0),
                "prctl": (0x59616D61, -1, 0, 0, 0),
            }[name]
            if getattr(ctypes.CDLL(None), name)(*arguments) == 0 and name != "prctl":
                found.append(name)
        look("environment", repr(dict(os.environ)).encode())
        look("arguments", repr((sys.argv, sys.orig_argv)).encode())
        for fd in os.listdir("/proc/self/fd"):
            if int(fd) > 2:
                try:
                    look(f"descriptor {fd}", os.pread(int(fd), 1 << 26, 0))
                except OSError:
                    continue
        for thing in gc.get_objects():
            if isinstance(thing, (dict, list, tuple)):
                values = thing.values() if isinstance(thing, dict) else thing
                for value in list(values):
                    if isinstance(value, str) and len(value) < 10_000:
                        look("an object", value.encode(errors="replace"))
        with open("/proc/self/maps") as table:
            maps = [line.split() for line in table]
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            for fields in maps:
                start, end = (int(word, 16) for word in fields[0].split("-"))
                if "r" not in fields[1] or end - start > 1 << 28 or fields[-1] == "[vvar]":
                    continue
                try:
                    memory.seek(start)
                    look("memory " + fields[-1], memory.read(end - start))
                except (OSError, ValueError):
                    continue
        raise LookupError(f"found {sorted(set(found))}, {len(maps)} maps")

    return search


def test_places():
    """The search itself finds what is there to be found: in this process's environment."""
    os.environ["HOSTILE_TEST"] = SECRET
    try:
        with pytest.raises(LookupError, match="'environment'"):
            searches(SECRET[::-1], attaches=False)()
    finally:
        del os.environ["HOSTILE_TEST"]


WAYS = {
    "flags": ([f"--post_url={URL}", f"--post_data={FIELDS}"], {}, ""),
    "environment": (
        [],
        {"NUMERAI_PREDICT_POST_DATA": FIELDS, "NUMERAI_PREDICT_POST_URL": URL},
        "",
    ),
    "standard input": ([f"--post_url={URL}", "--post_data=@-"], {}, FIELDS),
    "a key of NumerAPI's": ([], {"NUMERAI_SECRET_KEY": SECRET, "NUMERAI_PUBLIC_ID": SECRET}, ""),
}


def model_of(search):
    def model(live_features):
        search()

    return model


@pytest.mark.parametrize("flags, variables, stdin", WAYS.values(), ids=WAYS)
def test_the_model_finds_nothing(flags, variables, stdin, attack, tmp_path):
    result = tmp_path / "out" / "result.json"
    model = model_of(searches(SECRET[::-1]))
    flags = [*flags, f"--result={result}", "--debug"]
    done = attack(model, *flags, code=1, variables=variables, stdin=stdin)
    assert "LookupError: found [], " in done.log
    assert SECRET not in done.log
    assert SECRET not in result.read_text()
    assert json.loads(result.read_text())["code"] == 1


@pytest.mark.places("docker")
def test_nor_while_being_loaded_or_in_a_file_of_root(attack, tmp_path):
    (tmp_path / "fields").write_text(FIELDS)
    (tmp_path / "fields").chmod(0o600)
    flags = [f"--post_url={URL}", f"--post_data=@{tmp_path}/fields"]
    done = attack(AtLoad(searches(SECRET[::-1])), *flags, code=1)
    assert "LookupError: found [], " in done.log
    assert SECRET not in done.log


def reads(path):
    def model(live_features):
        with open(path) as file:
            raise LookupError(file.read()[::-1])

    return model


@pytest.mark.places("docker")
def test_a_file_of_secrets_is_closed_to_the_models_user(attack, tmp_path):
    (tmp_path / "fields").write_text(FIELDS)
    (tmp_path / "fields").chmod(0o600)
    flags = [f"--post_url={URL}", f"--post_data=@{tmp_path}/fields"]
    done = attack(reads(f"{tmp_path}/fields"), *flags, code=1)
    assert "PermissionError" in done.log
    assert SECRET[::-1] not in done.log
