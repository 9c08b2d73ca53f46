"""Small images, each wrong in one way, are examined against what they were expected to be."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any, Dict
from xml.etree import ElementTree

import pytest

from oci import engine, examine

Member = Dict[str, Any]

CONFIG = {
    "Entrypoint": ["/usr/bin/python3", "-I"],
    "Env": ["LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/bin"],
    "Labels": {"who": "me"},
    "WorkingDir": "/",
}
# The magic number, the flags and a hash.
UNCHECKED, TIMED = (bytes([1, 2, 3, 4, flags, 0, 0, 0]) + bytes(8) for flags in (1, 0))
LAYERS: list[dict[str, Member]] = [
    {
        "bin": {"link": "usr/bin"},
        "etc/passwd": {"content": b"root:x:0:0:root:/root:/sbin/nologin\n"},
        "tmp": {"type": tarfile.DIRTYPE, "mode": 0o1777},
        "usr/bin/python3": {"link": "python3.12"},
        "usr/bin/python3.12": {"mode": 0o755},
    },
    {
        "usr/lib/mod.py": {"content": b"a = 1\n"},
        "usr/lib/__pycache__/mod.cpython-312.pyc": {"content": UNCHECKED},
    },
]
EXPECTED = {
    "image": {
        "entrypoint": ["/usr/bin/python3", "-I"],
        "env": {"LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin"},
        "labels": {"who": "me"},
        "user": "",
        "workdir": "/",
    },
    "files": [
        {"path": "/usr/bin/python3", "link": "/usr/bin/python3.12", "executable": True},
        {"path": "/usr/bin/python3.12", "mode": 0o755},
        {"path": "/usr/lib/mod.py", "mode": 0o644, "executable": False, "contains": [r"^a = \d$"]},
        {"path": "/bin/sh", "absent": True},
    ],
    "users": [{"name": "root", "uid": 0, "home": "/root"}],
    "everywhere": {
        "writable": ["/tmp"],
        "setuid": [],
        "foreign": [],
        "dangling": [],
        "uncompiled": [],
        "python": "3.12",
        "programs": ["python3*"],
    },
}


def archive(folder: Path, changes: dict[str, Member | None], config: dict[str, Any]) -> Path:
    """An image of LAYERS and a third layer of `changes`; None takes a member away."""
    base = [{path: layer[path] for path in layer if path not in changes} for layer in LAYERS]
    changed = {path: member for path, member in changes.items() if member is not None}
    layers = {
        f"{number}.tar.gz": gzip.compress(layer_tar(layer)) for number, layer in enumerate(base)
    }
    layers["new.tar.gz"] = gzip.compress(layer_tar(changed))
    manifest = [{"Config": "config", "RepoTags": ["tiny:1"], "Layers": [*layers]}]
    document = {"architecture": "amd64", "config": {**CONFIG, **config}}
    files = {"manifest.json": json.dumps(manifest), "config": json.dumps(document)}
    blobs = {**layers, **{name: text.encode() for name, text in files.items()}}
    path = folder / "image.tar"
    path.write_bytes(layer_tar({name: {"content": content} for name, content in blobs.items()}))
    return path


def layer_tar(members: dict[str, Member]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, member in members.items():
            info = tarfile.TarInfo(path)
            content = member.get("content", b"")
            info.type = member.get("type", tarfile.SYMTYPE if "link" in member else tarfile.REGTYPE)
            info.linkname, info.mode = member.get("link", ""), member.get("mode", 0o644)
            info.uid, info.size = member.get("uid", 0), len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def problems(
    folder: Path, changes: dict[str, Member | None], config: dict[str, Any]
) -> dict[str, str]:
    def run(*_: object) -> Any:
        raise AssertionError("no command is expected")

    image = engine.Image(archive(folder, changes, config))
    checks = [*examine.examine([EXPECTED], image, run)]
    assert len(checks) == 5 + 4 + 1 + 6
    return {check.name: check.problem for check in checks if check.problem}


def test_an_image_that_is_as_expected(tmp_path: Path) -> None:
    assert problems(tmp_path, {}, {}) == {}


@pytest.mark.parametrize(
    "config, name, problem",
    [
        ({"Entrypoint": ["/bin/sh"]}, "entrypoint", "found ['/bin/sh']"),
        ({"Env": ["LANG=C"]}, "env", "found {'LANG': 'C'}"),
        ({"Labels": None}, "labels", "expected {'who': 'me'}, found {'who': None}"),
        ({"User": "me"}, "user", "expected '', found 'me'"),
        ({"WorkingDir": "/tmp"}, "workdir", "expected '/', found '/tmp'"),
    ],
)
def test_a_configuration_that_is_not(
    tmp_path: Path, config: dict[str, Any], name: str, problem: str
) -> None:
    found = problems(tmp_path, {}, config)
    assert found.keys() == {f"image: {name}"} and problem in found[f"image: {name}"]


def test_there_may_be_more_labels(tmp_path: Path) -> None:
    assert problems(tmp_path, {}, {"Labels": {"who": "me", "more": "1"}}) == {}


@pytest.mark.parametrize(
    "path, member, name, problem",
    [
        (
            "usr/bin/python3",
            {"link": "python3.13"},
            "files: /usr/bin/python3",
            "'/usr/bin/python3.13'",
        ),
        ("usr/bin/python3", {"mode": 0o755}, "files: /usr/bin/python3", "found None"),
        ("usr/bin/python3", None, "files: /usr/bin/python3", "is not there"),
        (
            "usr/bin/python3.12",
            {"mode": 0o700},
            "files: /usr/bin/python3.12",
            "expected mode '0755', found '0700'",
        ),
        ("usr/bin/python3.12", {"mode": 0o644}, "files: /usr/bin/python3", "is not executable"),
        ("usr/lib/mod.py", {"mode": 0o755}, "files: /usr/lib/mod.py", "is executable"),
        (
            "usr/lib/mod.py",
            {"content": b"b = 1\n"},
            "files: /usr/lib/mod.py",
            r"expected content to match '^a = \\d$', found 'b = 1'",
        ),
        ("usr/bin/sh", {}, "files: /bin/sh", "expected to be absent, and it is there"),
        ("etc/passwd", {"content": b"a:b\n"}, "users: root", "not in /etc/passwd"),
        (
            "etc/passwd",
            {"content": b"root:x:1:0::/root:\n"},
            "users: root",
            "found {'name': 'root', 'uid': 1, 'home': '/root'}",
        ),
        (
            "etc/open",
            {"mode": 0o666},
            "everywhere: writable",
            "expected none but ['/tmp'], found /etc/open",
        ),
        ("etc/su", {"mode": 0o4755}, "everywhere: setuid", "expected none, found /etc/su"),
        ("etc/group", {"mode": 0o2755}, "everywhere: setuid", "found /etc/group"),
        ("etc/mine", {"uid": 1000}, "everywhere: foreign", "found /etc/mine"),
        ("etc/link", {"link": "../nowhere"}, "everywhere: dangling", "found /etc/link"),
        ("etc/loop", {"link": "loop"}, "everywhere: dangling", "found /etc/loop"),
        ("usr/lib/new.py", {}, "everywhere: uncompiled", "expected none, found /usr/lib/new.py"),
        (
            "usr/lib/__pycache__/mod.cpython-312.pyc",
            {"content": TIMED},
            "everywhere: uncompiled",
            "found /usr/lib/mod.py",
        ),
        ("usr/bin/gcc", {"mode": 0o755}, "everywhere: programs", "found gcc"),
    ],
)
def test_a_file_that_is_not(
    tmp_path: Path, path: str, member: Member | None, name: str, problem: str
) -> None:
    found = problems(tmp_path, {path: member}, {})
    assert problem in found[name]


def test_of_a_path_through_a_link_the_real_one_is_told(tmp_path: Path) -> None:
    (check,) = examine.check_files(
        [{"path": "/bin/python3.12", "mode": 0o755}],
        examine.Files(engine.Image(archive(tmp_path, {}, {})).open_layers(), ()),
    )
    assert check.problem == "is reached through a link; write /usr/bin/python3.12"


# Stands in for engine.py: shows its arguments, writes a file, fails if told to.
ENGINE = """
import sys
print(*sys.argv[1:])
print("a warning", file=sys.stderr)
if "--write" in sys.argv:
    open("out-1.csv", "w").write("id\\n1\\n")
sys.exit(sys.argv.count("--fail"))
"""


@pytest.fixture
def examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the program with one command to check; returns its exit code, output and report."""

    def examined(command: Member, *options: str) -> tuple[int, str, ElementTree.Element]:
        monkeypatch.chdir(tmp_path)
        Path("engine.py").write_text(ENGINE)
        monkeypatch.setattr(engine, "__file__", "engine.py")
        expected = [{"commands": [{"name": "it", **command}]}]
        Path("expected.json").write_text(json.dumps(expected))
        image = str(archive(tmp_path, {}, {}))
        argv = [
            "--name=tiny",
            "--report=r.xml",
            *options,
            image,
            "expected.json",
            "--",
            "--engine=x",
        ]
        monkeypatch.setattr(sys, "argv", ["examine", *argv])
        with pytest.raises(SystemExit) as exit:
            examine.main()
        assert isinstance(exit.value.code, int)
        (case,) = ElementTree.parse("r.xml").iter("testcase")
        assert (case.get("classname"), case.get("name")) in {
            ("tiny", "commands: it"),
            ("tiny", "commands"),
        }
        return exit.value.code, capsys.readouterr().out, case

    return examined


@pytest.mark.parametrize(
    "command",
    [
        {},
        {"stdout": [r"^--engine=x .*image\.tar$"]},
        {
            "entrypoint": "/bin/cat",
            "args": ["a", "b"],
            "stdout": [r"--entrypoint=/bin/cat \S+ a b$"],
        },
        {"stderr": ["^a warning$"]},
        {"args": ["--fail", "--fail"], "exit_code": 2},
        {"args": ["--write"], "written": {"out-*.csv": r"\Aid\n\d\n\Z"}},
        {"platforms": "native"},
    ],
)
def test_a_command_that_does_as_expected(examined, command: Member) -> None:
    code, output, case = examined(command)
    assert (code, [*case]) == (0, [])
    assert output == "ok       commands: it\n1 checks, 0 failed\n"


@pytest.mark.parametrize(
    "command, problem",
    [
        ({"args": ["--fail"]}, "expected exit code 0, found 1"),
        ({"exit_code": 3}, "expected exit code 3, found 0"),
        ({"stdout": ["hello"]}, "expected stdout to match 'hello', found '--engine=x "),
        ({"stderr": ["^warning"]}, "expected stderr to match '^warning', found 'a warning'"),
        ({"written": {"out-*.csv": ""}}, "expected a file out-*.csv, none was written"),
        # It was there before.
        ({"written": {"engine.py": ""}}, "expected a file engine.py, none was written"),
        (
            {"args": ["--write"], "written": {"out-*.csv": "^x"}},
            r"expected out-1.csv to match '^x', found 'id\n1'",
        ),
    ],
)
def test_a_command_that_does_not(examined, command: Member, problem: str) -> None:
    code, output, case = examined(command)
    assert code == 1 and "1 checks, 1 failed" in output
    assert f"FAILED   commands: it: {problem}" in output
    (failure,) = case.iter("failure")
    assert failure.get("message").startswith(problem) and "a warning" in failure.get("message")


@pytest.mark.parametrize(
    "options, command, reason",
    [
        (["--cannot-run=no emulator"], {}, "no emulator"),
        (["--emulated"], {"platforms": "native"}, "takes too long under emulation"),
    ],
)
def test_a_command_that_cannot_run_is_skipped(examined, options, command, reason) -> None:
    code, output, case = examined({"args": ["--fail"], **command}, *options)
    assert code == 0 and f": {reason}\n" in output
    assert [skipped.get("message") for skipped in case.iter("skipped")] == [reason]


def test_emulation_runs_what_is_for_all_platforms(examined) -> None:
    assert examined({"args": ["--fail"]}, "--emulated")[0] == 1


def test_control_characters_do_not_spoil_the_report() -> None:
    root = examine.report([examine.Check("a", "\x1b[31mred\x00")], "tiny")
    again = ElementTree.fromstring(ElementTree.tostring(root))
    assert [failure.get("message") for failure in again.iter("failure")] == ["�[31mred�"]
