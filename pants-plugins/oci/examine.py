"""Examines an image: is it what was expected of it (`expectations.py`)?

Its configuration and its files are read from the archive; its commands run on a container engine,
started by `engine.py` with the options after `--`. Prints a line for every check, writes them as a
JUnit report, and exits 1 if any failed.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import posixpath
import re
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Collection, Dict, Iterator, List, Mapping, Optional, Sequence
from xml.etree import ElementTree

from oci import engine

# Where programs are started from by name, besides the image's own PATH.
PROGRAM_FOLDERS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")

# The start of a .pyc: the interpreter's magic number and the flags, of which 1 is "by hash, never
# checked" (PEP 552).
PYC_HEADER = 8
UNCHECKED = b"\1\0\0\0"

# Of many things that are wrong alike, and of a command's output.
SHOWN_PATHS = 10
SHOWN_OUTPUT = 4_000

Expected = Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """What was looked at; `problem` is what is expected and what was found instead."""

    name: str
    problem: str = ""
    skipped: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.skipped:
            return f"skipped  {self.name}: {self.skipped}"
        if self.problem:
            return f"FAILED   {self.name}: " + self.problem.replace("\n", "\n           ")
        return f"ok       {self.name}"


@dataclass(frozen=True)
class File:
    mode: int
    owner: str
    is_folder: bool = False
    link: Optional[str] = None
    content: Optional[bytes] = None

    @property
    def is_plain(self) -> bool:
        return not self.is_folder and self.link is None


# A folder that a layer puts something into and does not list.
IMPLIED = File(0o755, "0:0", is_folder=True)


class Files:
    """What an image holds, by absolute path.

    Args:
        layers: the lowest first.
        read: the files whose whole content to keep.
    """

    def __init__(self, layers: Iterator[tarfile.TarFile], read: Collection[str]) -> None:
        self._files: Dict[str, File] = {}
        for layer in layers:
            for member in layer:
                path = _absolute(member.name)
                if member.islnk():
                    self._files[path] = self._files[_absolute(member.linkname)]
                else:
                    self._files[path] = _file(layer, member, path in read)
                for parent in _parents(path):
                    self._files.setdefault(parent, IMPLIED)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._files))

    def __getitem__(self, path: str) -> File:
        return self._files[path]

    def get(self, path: str) -> Optional[File]:
        """What lies at `path` itself."""
        return self._files.get(path)

    def resolve(self, path: str) -> Optional[str]:
        """Where `path` leads, all links followed; None if nowhere."""
        for _ in range(40):
            for part in (*reversed(_parents(path)), path):
                file = self._files.get(part)
                if file and file.link is not None:
                    target = _joined(part, file.link)
                    path = posixpath.normpath(target + path[len(part) :])
                    break
            else:
                return path if path in self._files else None
        return None


def _file(tar: tarfile.TarFile, member: tarfile.TarInfo, whole: bool) -> File:
    content = None
    if member.isreg() and (whole or member.name.endswith(".pyc")):
        stream = tar.extractfile(member)
        assert stream is not None, "it is a plain file"
        content = stream.read(-1 if whole else PYC_HEADER)
    return File(
        mode=member.mode,
        owner=f"{member.uid}:{member.gid}",
        is_folder=member.isdir(),
        link=member.linkname if member.issym() else None,
        content=content,
    )


def _absolute(name: str) -> str:
    return posixpath.normpath(f"/{name}")


def _joined(link: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(link), target))


def _parents(path: str) -> List[str]:
    """The folders above, the nearest first."""
    parents = []
    while path != "/":
        path = posixpath.dirname(path)
        parents.append(path)
    return parents


def check_configuration(expected: Expected, config: Mapping[str, Any]) -> Iterator[Check]:
    environment = dict(variable.split("=", 1) for variable in config.get("Env") or ())
    # Of labels there may be more: those that layers add depend on where they were made.
    labels = {name: (config.get("Labels") or {}).get(name) for name in expected.get("labels", ())}
    found = {
        "entrypoint": config.get("Entrypoint"),
        "env": environment,
        "labels": labels,
        "user": config.get("User", ""),
        "workdir": config.get("WorkingDir") or "/",
    }
    for key, value in expected.items():
        yield Check(f"image: {key}", _difference(value, found[key]))


def check_files(expected: Sequence[Expected], files: Files) -> Iterator[Check]:
    for each in expected:
        problems = "; ".join(filter(None, _file_problems(each, files)))
        yield Check(f"files: {each['path']}", problems)


def _file_problems(expected: Expected, files: Files) -> Iterator[str]:
    path = expected["path"]
    file = files.get(path)
    if expected.get("absent"):
        if files.resolve(path) is not None:
            yield "expected to be absent, and it is there"
    elif file is None:
        real = files.resolve(path)
        yield f"is reached through a link; write {real}" if real else "is not there"
    else:
        if "link" in expected:
            target = None if file.link is None else _joined(path, file.link)
            yield _difference(_joined(path, expected["link"]), target, "a link to ")
        if "mode" in expected:
            yield _difference(f"{expected['mode']:04o}", f"{file.mode:04o}", "mode ")
        if "executable" in expected:
            # Of a link it is what it leads to that counts.
            real_file = files.get(files.resolve(path) or path)
            is_executable = bool(real_file and real_file.is_plain and real_file.mode & 0o111)
            if is_executable != expected["executable"]:
                yield f"is {'' if is_executable else 'not '}executable"
        for pattern in expected.get("contains", ()):
            text = (file.content or b"").decode(errors="replace")
            yield _mismatch(pattern, text, "content")


def check_users(expected: Sequence[Expected], files: Files) -> Iterator[Check]:
    passwd = files.get("/etc/passwd")
    lines = ((passwd and passwd.content) or b"").decode().splitlines()
    users = {line.split(":")[0]: line.split(":") for line in lines if line.count(":") == 6}
    for each in expected:
        name, user = each["name"], users.get(each["name"])
        if user is None:
            yield Check(f"users: {name}", f"not in /etc/passwd, which has {', '.join(users)}")
            continue
        found = {"name": name, "uid": int(user[2]), "home": user[5]}
        yield Check(f"users: {name}", _difference({**each}, {key: found[key] for key in each}))


def check_everywhere(
    expected: Expected, files: Files, config: Mapping[str, Any]
) -> Iterator[Check]:
    """Each key is something that no file may be, but for those that match its patterns."""
    found: Dict[str, Callable[[], Iterator[str]]] = {
        "writable": lambda: (p for p in files if files[p].link is None and files[p].mode & 0o002),
        "setuid": lambda: (p for p in files if files[p].is_plain and files[p].mode & 0o6000),
        "foreign": lambda: (p for p in files if files[p].owner != "0:0"),
        "dangling": lambda: (
            p for p in files if files[p].link is not None and files.resolve(p) is None
        ),
        "uncompiled": lambda: _uncompiled(files, expected["python"]),
        "programs": lambda: _programs(files, config),
    }
    for key, paths in found.items():
        if key in expected:
            wrong = [path for path in paths() if not _matches(path, expected[key])]
            more = f" and {len(wrong) - SHOWN_PATHS} more" if len(wrong) > SHOWN_PATHS else ""
            allowed = f"expected none but {expected[key]}" if expected[key] else "expected none"
            shown = ", ".join(wrong[:SHOWN_PATHS])
            yield Check(f"everywhere: {key}", f"{allowed}, found {shown}{more}" if wrong else "")


def _uncompiled(files: Files, python: str) -> Iterator[str]:
    """Modules without a .pyc of this minor version that is never checked against its source."""
    tag = f"cpython-{python.replace('.', '')}"
    modules = [path for path in files if path.endswith(".py") and files[path].is_plain]
    for module in modules:
        folder, name = posixpath.split(module[: -len(".py")])
        pyc = files.get(f"{folder}/__pycache__/{name}.{tag}.pyc")
        if pyc is None or (pyc.content or b"")[4:PYC_HEADER] != UNCHECKED:
            yield module
    if not modules:
        yield "no module at all"


def _programs(files: Files, config: Mapping[str, Any]) -> Iterator[str]:
    """The names of what can be started by name."""
    environment = dict(variable.split("=", 1) for variable in config.get("Env") or ())
    folders = {*PROGRAM_FOLDERS, *environment.get("PATH", "").split(":")}
    real = {files.resolve(folder) for folder in folders if folder}
    yield from sorted(
        {posixpath.basename(path) for path in files if posixpath.dirname(path) in real}
    )


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


# Runs a command in a container: what to start instead of the entry point, and the arguments.
Run = Callable[[Optional[str], Sequence[str]], "subprocess.CompletedProcess[str]"]


def check_command(expected: Expected, run: Run, folder: Path) -> Check:
    """`folder` is the container's working directory, where it writes its files."""
    globs = expected.get("written", {})
    before = {path for glob in globs for path in folder.glob(glob)}
    started = time.monotonic()
    done = run(expected.get("entrypoint"), expected.get("args", ()))
    seconds = time.monotonic() - started
    problems = [_difference(expected.get("exit_code", 0), done.returncode, "exit code ")]
    for stream, text in (("stdout", done.stdout), ("stderr", done.stderr)):
        problems += [_mismatch(pattern, text, stream) for pattern in expected.get(stream, ())]
    for glob, pattern in globs.items():
        new = sorted({*folder.glob(glob)} - before)
        problems += [_mismatch(pattern, file.read_text(), file.name) for file in new]
        problems += [] if new else [f"expected a file {glob}, none was written"]
    problem = "; ".join(filter(None, problems))
    if problem:
        problem += f"\nstdout:\n{_tail(done.stdout)}\nstderr:\n{_tail(done.stderr)}"
    return Check(f"commands: {expected['name']}", problem, seconds=seconds)


def _difference(expected: Any, found: Any, what: str = "") -> str:
    return "" if expected == found else f"expected {what}{expected!r}, found {found!r}"


def _mismatch(pattern: str, text: str, what: str) -> str:
    if re.search(pattern, text, re.MULTILINE):
        return ""
    return f"expected {what} to match {pattern!r}, found {_tail(text.strip(), 200)!r}"


def _tail(text: str, length: int = SHOWN_OUTPUT) -> str:
    return text if len(text) <= length else f"… {text[-length:]}"


def examine(
    expectations: Sequence[Expected],
    image: engine.Image,
    run: Run,
    *,
    emulated: bool = False,
    cannot_run: str = "",
) -> Iterator[Check]:
    """All checks of the documents in `expectations`.

    Args:
        emulated: whether this machine's processor is another than the image's.
        cannot_run: why commands cannot run here, if so.
    """
    wanted = {each["path"] for expected in expectations for each in expected.get("files", ())}
    files = Files(image.open_layers(), {*wanted, "/etc/passwd"})
    for expected in expectations:
        yield from check_configuration(expected.get("image", {}), image.config)
        yield from check_files(expected.get("files", ()), files)
        yield from check_users(expected.get("users", ()), files)
        yield from check_everywhere(expected.get("everywhere", {}), files, image.config)
    commands = [each for expected in expectations for each in expected.get("commands", ())]
    if cannot_run and commands:
        yield Check("commands", skipped=cannot_run)
        return
    for command in commands:
        if emulated and command.get("platforms") == "native":
            yield Check(f"commands: {command['name']}", skipped="takes too long under emulation")
        else:
            yield check_command(command, run, Path.cwd())


def report(checks: Sequence[Check], suite: str) -> ElementTree.Element:
    """A JUnit report."""
    root = ElementTree.Element("testsuites")
    counts = {
        "tests": str(len(checks)),
        "failures": str(sum(bool(check.problem) for check in checks)),
        "skipped": str(sum(bool(check.skipped) for check in checks)),
    }
    element = ElementTree.SubElement(root, "testsuite", {"name": suite, **counts})
    for check in checks:
        attributes = {"classname": suite, "name": check.name, "time": f"{check.seconds:.3f}"}
        case = ElementTree.SubElement(element, "testcase", attributes)
        for tag, message in (("failure", check.problem), ("skipped", check.skipped)):
            if message:
                # XML cannot say control characters at all.
                printable = re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd]", "�", message)
                ElementTree.SubElement(case, tag, {"message": printable})
    return root


def _runner(archive: Path, options: Sequence[str]) -> Run:
    def run(entrypoint: Optional[str], args: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        argv = [
            *(sys.executable, engine.__file__, *options),
            *([f"--entrypoint={entrypoint}"] if entrypoint else []),
            *(str(archive), *args),
        ]
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )

    return run


def main() -> None:
    parser = argparse.ArgumentParser(prog="oci.examine", description=__doc__)
    parser.add_argument("--name", required=True, help="the image's, for the report")
    parser.add_argument("--report", type=Path, required=True, help="JUnit file to write")
    parser.add_argument("--emulated", action="store_true")
    parser.add_argument("--cannot-run", default="", help="why commands are skipped")
    parser.add_argument("archive", type=Path)
    parser.add_argument("expectations", type=Path, help="JSON: a list of documents")
    parser.add_argument("engine", nargs="*", help="options of engine.py")
    args = parser.parse_args()
    run = _runner(args.archive, args.engine)
    checks: List[Check] = []
    for check in examine(
        json.loads(args.expectations.read_text()),
        engine.Image(args.archive),
        run,
        emulated=args.emulated,
        cannot_run=args.cannot_run,
    ):
        print(check, flush=True)
        checks.append(check)
    ElementTree.ElementTree(report(checks, args.name)).write(args.report, encoding="utf-8")
    failed = sum(bool(check.problem) for check in checks)
    print(f"{len(checks)} checks, {failed} failed")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
