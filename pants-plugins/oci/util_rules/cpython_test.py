"""The interpreter that runs these tests stands for all: archived, and as the machine's own."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import platform
import socket
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import Any, Mapping

import pytest
from pants.engine.addresses import Address
from pants.engine.fs import DigestContents
from pants.engine.internals.scheduler import ExecutionError
from pants.util.frozendict import FrozenDict

from oci.testutil.debs import Member, make_deb
from oci.testutil.elf import make_elf
from oci.testutil.image_runner import image_runner
from oci.util_rules.cpython import LABEL, _unreachable
from oci.util_rules.host_interpreter import _fingerprint, _probed
from oci.util_rules.image import ImagePlatforms, ImagePlatformsRequest
from oci.util_rules.layer import Layer, LayerOf
from oci.util_rules.platform import PLATFORMS, ImagePlatform, host_platform

HERE = host_platform()
ELSEWHERE = next(known for known in PLATFORMS.values() if known != HERE)
VERSION = platform.python_version()
MINOR = VERSION.rpartition(".")[0]
EXECUTABLE = Path(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]
STDLIB = Path(sysconfig.get_path("stdlib"))
UNUSED = {"__pycache__", "ensurepip", "idlelib", "site-packages", "test", "tkinter", "lib2to3"}

BASE = make_deb("base", {f"lib/{HERE.triplet}/libc.so.6": Member(make_elf("libc.so.6"))})
BASE_PIN = {
    **{"name": "base", "version": "1", "architecture": "all", "path": "base.deb", "set": "base"},
    **{"sha256": hashlib.sha256(BASE).hexdigest(), "size": len(BASE)},
}
BUILD = f"""
debian_layer(name="base", lock="debian.lock", set="base")
standalone_python_interpreter(
    name="python", lock="cpython.lock", version="{MINOR}", base=[":base"]
)
standalone_python_interpreter(
    name="another", lock="cpython.lock", version="3.99", base=[":base"]
)
python_sources_layer(name="sources", interpreter=":python", dependencies=["src/one"])
oci_image(
    name="image",
    repository="image",
    platforms={[*PLATFORMS]},
    layers=[":base", ":python"],
    entrypoint=["/usr/bin/python3"],
)
"""


@pytest.fixture(scope="module")
def archive() -> bytes:
    """As python-build-standalone lays out its archives; smaller."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as stream:
        with tarfile.open(fileobj=stream, mode="w") as tar:
            tar.add(EXECUTABLE, f"python/bin/python{MINOR}")
            for library in sorted((EXECUTABLE.parent.parent / "lib").glob("libpython*.so.*")):
                tar.add(library, f"python/lib/{library.name}")
            for path in sorted(STDLIB.rglob("*.*")):
                inside = path.relative_to(STDLIB)
                if path.is_file() and UNUSED.isdisjoint(inside.parts) and path.suffix != ".a":
                    tar.add(path, f"python/lib/python{MINOR}/{inside}")
            for unused in (f"lib/python{MINOR}/test/a.py", "include/Python.h"):
                tar.addfile(tarfile.TarInfo(f"python/{unused}"))
    return out.getvalue()


class Repository:
    """Its lock names an archive that is served, and the interpreter that the machine has."""

    def __init__(self, folder: Path, archive: bytes) -> None:
        self.folder, self.archive = folder, archive
        self.interpreters = folder / "interpreters"
        for name in ("interpreters", "release"):
            (folder / name).mkdir()
        (folder / "base.deb").write_bytes(BASE)
        self.runner = image_runner()
        self.mirrors = f"file://{folder} {self.runner.environment['DEBIAN_MIRROR']}"

    def install(self, *names: str) -> None:
        """What the search path for interpreters has."""
        for file in self.interpreters.iterdir():
            file.unlink()
        for name in names:
            (self.interpreters / name).symlink_to(EXECUTABLE)

    def choose(
        self,
        source: str,
        *,
        archive: bytes | None = None,
        pin: Mapping[str, Any] = FrozenDict(),
        version: str = VERSION,
        mirror: str = "",
    ) -> None:
        """Writes the lock and sets the options.

        `pin` and `version` are what the lock says of the `archive`, where that is not the truth.
        """
        served = self.archive if archive is None else archive
        (self.folder / "release/cpython.tar.gz").write_bytes(served)
        true = {
            "url": f"file://{self.folder}/release/cpython.tar.gz",
            "sha256": hashlib.sha256(served).hexdigest(),
            "size": len(served),
        }
        archives = {platform: {**true, **pin} for platform in PLATFORMS}
        python = {"version": version, "release": "2026", "archives": archives}
        self.runner.write_files(
            {
                "images/BUILD": BUILD,
                "src/one/BUILD": "python_sources()",
                "src/one/mod.py": "one = 1\n",
                "debian.lock": json.dumps({"suite": "tiny", "packages": [BASE_PIN]}),
                "cpython.lock": json.dumps({"pythons": {MINOR: python, "3.99": python}}),
            }
        )
        self.runner.set_options(
            [
                *("--source-root-patterns=/src", "--python-infer-use-rust-parser"),
                f"--oci-interpreter-source={source}",
                f"--python-bootstrap-search-path=['{self.interpreters}']",
            ],
            env={"DEBIAN_MIRROR": self.mirrors, "CPYTHON_MIRROR": mirror},
            env_inherit={"PATH", "HOME"},
        )

    def platforms(self, source: str, **lock: Any) -> tuple[str, ...]:
        """Those that the image of both can be built for."""
        self.choose(source, **lock)
        request = ImagePlatformsRequest(Address("images", target_name="image"))
        return self.runner.request(ImagePlatforms, [request]).names

    def layer(
        self, name: str, source: str, *, platform: ImagePlatform = HERE, **lock: Any
    ) -> dict[str, Any]:
        """The layer's description, and what it holds as "members"."""
        self.choose(source, **lock)
        request = LayerOf(Address("images", target_name=name), platform)
        contents = self.runner.request(
            DigestContents, [self.runner.request(Layer, [request]).digest]
        )
        held = {file.path: file.content for file in contents}
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(held["layer.tar.gz"]))) as tar:
            return {**json.loads(held["layer.json"]), "members": {member.name for member in tar}}

    def refusal(self, name: str, source: str, **lock: Any) -> str:
        with pytest.raises(ExecutionError) as error:
            self.layer(name, source, **lock)
        return str(error.value)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, archive: bytes) -> Repository:
    return Repository(tmp_path_factory.mktemp("repository"), archive)


@pytest.fixture(autouse=True)
def no_interpreters(repository: Repository) -> None:
    repository.install()


def of_interpreter(members: set[str]) -> None:
    """What any layer of an interpreter has, and has not."""
    stdlib = f"usr/local/lib/python{MINOR}"
    tag = f"cpython-{MINOR.replace('.', '')}"
    assert members >= {
        *("etc/ld.so.cache", "usr/bin/python3", f"usr/local/bin/python{MINOR}"),
        *(f"{stdlib}/os.py", f"{stdlib}/__pycache__/os.{tag}.pyc", f"{stdlib}/site-packages"),
    }
    assert {path.split("/")[0] for path in members} == {"etc", "usr"}
    unused = (UNUSED - {"site-packages", "__pycache__", "lib2to3"}) | {"include", "share"}
    assert not {path for path in members if unused & set(path.split("/"))}


def test_a_pinned_interpreter(repository: Repository) -> None:
    layer = repository.layer("python", "pinned")
    of_interpreter(layer["members"])
    sha256 = hashlib.sha256(repository.archive).hexdigest()
    assert layer["inputs"] == {"cpython": f"{VERSION}+2026 sha256:{sha256}"}
    told = {"version": VERSION, "file": "archive", "sha256": sha256}
    assert {**layer["interpreter"], **told} == layer["interpreter"]
    assert {*layer["interpreter"]["libraries"]} <= layer["members"]
    assert "labels" not in layer
    assert "usr/local/lib/libc.so.6" not in layer["members"]


def test_who_builds_does_not_matter(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = repository.layer("python", "pinned")
    monkeypatch.setenv("HOME", str(tmp_path))
    mask = os.umask(0o077)
    try:
        assert repository.layer("python", "pinned") == first
    finally:
        os.umask(mask)


def test_modules_are_compiled_by_the_version_that_runs_them(repository: Repository) -> None:
    packages = f"usr/local/lib/python{MINOR}/site-packages"
    tag = f"cpython-{MINOR.replace('.', '')}"
    expected = {f"{packages}/one/mod.py", f"{packages}/one/__pycache__/mod.{tag}.pyc"}
    assert repository.layer("sources", "pinned")["members"] >= expected
    repository.install(f"python{MINOR}")
    assert repository.layer("sources", "host")["members"] >= expected


def test_another_platform_needs_no_emulation(repository: Repository) -> None:
    repository.install(f"python{MINOR}")
    layer = repository.layer("python", "auto", platform=ELSEWHERE)
    of_interpreter(layer["members"])
    assert "labels" not in layer


@pytest.mark.parametrize("there", [True, False])
def test_mirrors(repository: Repository, there: bool) -> None:
    mirror = f"file://{repository.folder}" if there else f"file://{repository.folder}/nowhere"
    # Only from the mirror: of another digest than what other tests left in the store.
    archive = gzip.compress(gzip.decompress(repository.archive) + bytes(512 * (1 + there)), 1)
    lock: dict[str, Any] = {
        "archive": archive,
        "pin": {"url": "file:///nowhere/release/cpython.tar.gz"},
    }
    if there:
        of_interpreter(repository.layer("python", "pinned", mirror=mirror, **lock)["members"])
    else:
        says = repository.refusal("python", "pinned", mirror=mirror, **lock)
        assert f"{mirror}/release/cpython.tar.gz: " in says and "file:///nowhere" not in says


def test_an_archive_that_was_changed(repository: Repository) -> None:
    pin = {"sha256": hashlib.sha256(b"another").hexdigest()}
    says = repository.refusal("python", "pinned", pin=pin)
    assert f"images:python needs CPython {MINOR} for {HERE.name}. Tried:" in says
    assert "release/cpython.tar.gz: " in says and "Wrong digest" in says


def test_an_archive_that_is_truncated(repository: Repository) -> None:
    truncated = repository.archive[: len(repository.archive) // 2]
    assert "archive.tar.gz is no complete archive of an interpreter" in repository.refusal(
        "python", "pinned", archive=truncated
    )
    true = {
        "sha256": hashlib.sha256(repository.archive + b"?").hexdigest(),
        "size": len(repository.archive) + 1,
    }
    assert "Wrong digest" in repository.refusal("python", "pinned", pin=true)


def test_an_archive_of_another_version(repository: Repository) -> None:
    says = repository.refusal("another", "pinned")
    assert f"archive.tar.gz holds python{MINOR}; python3.99 was asked for" in says
    says = repository.refusal("python", "pinned", version=f"{MINOR}.99")
    assert f"CPython {MINOR}.99 was asked for" in says


def test_neither_an_archive_nor_an_interpreter(repository: Repository) -> None:
    repository.install("python3.8")
    pin = {"sha256": hashlib.sha256(b"nobody has it").hexdigest(), "url": "file:///nowhere/a.gz"}
    says = repository.refusal("python", "auto", pin=pin)
    assert f"images:python needs CPython {MINOR} for {HERE.name}. Tried:\n" in says
    assert "  file:///nowhere/a.gz: " in says
    assert "  this machine's interpreters: [python-bootstrap].search_path has Python 3.8\n" in says
    assert "CPYTHON_MIRROR" in says and f"`pyenv install {MINOR}`" in says


def test_this_machines_interpreter(repository: Repository) -> None:
    repository.install(f"python{MINOR}")
    layer = repository.layer("python", "host")
    of_interpreter(layer["members"])
    assert layer["labels"] == {LABEL: f"CPython {VERSION} of the build machine; not reproducible"}
    assert layer["python"] == {"version": MINOR}
    assert "usr/local/lib/libc.so.6" not in layer["members"]
    assert layer["inputs"] == {"cpython": f"{VERSION} of the build machine, {EXECUTABLE}"}


def test_without_the_archive_it_is_taken_with_a_warning(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    repository.install(f"python{MINOR}")
    pin = {"sha256": hashlib.sha256(b"nobody has it").hexdigest(), "url": "file:///nowhere/a.gz"}
    assert repository.layer("python", "auto", pin=pin)["labels"]
    (warning,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    for told in ("images:python", VERSION, str(EXECUTABLE), "NOT reproducible", "file:///nowhere"):
        assert told in warning.getMessage()
    caplog.clear()
    assert "labels" not in repository.layer("python", "auto")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_this_machines_interpreter_is_for_this_machines_platform(repository: Repository) -> None:
    repository.install(f"python{MINOR}")
    says = repository.refusal("python", "host", platform=ELSEWHERE)
    assert f"needs CPython {MINOR} for {ELSEWHERE.name}" in says
    assert f"this machine's interpreters: they run on {HERE.name}" in says


def test_an_image_is_built_for_the_platforms_that_have_an_interpreter(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    repository.install(f"python{MINOR}")
    assert repository.platforms("pinned") == repository.platforms("auto") == (*PLATFORMS,)
    assert not caplog.records
    assert repository.platforms("host") == (HERE.name,)
    (warning,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert f"images:image: {ELSEWHERE.name} is left out" in warning.getMessage()


def test_pins_that_are_not_to_be_had_leave_no_platform_out(repository: Repository) -> None:
    repository.install(f"python{MINOR}")
    pin = {"sha256": hashlib.sha256(b"nobody has it").hexdigest(), "url": "file:///nowhere/a.gz"}
    with pytest.raises(ExecutionError, match="needs CPython"):
        repository.platforms("pinned", pin=pin)
    assert repository.platforms("auto", pin=pin) == (HERE.name,)


def test_an_interpreter_that_is_another_one_than_its_name_says(repository: Repository) -> None:
    repository.install("python3.99")
    says = repository.refusal("another", "host")
    assert f"{repository.interpreters}/python3.99 is Python {VERSION}" in says


def test_a_virtual_environment_stands_for_what_it_was_made_of(tmp_path: Path) -> None:
    subprocess.run([EXECUTABLE, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    found, why = _probed(str(tmp_path / "venv/bin/python"), MINOR)
    assert found is not None, why
    assert (found.executable, found.stdlib[0]) == (str(EXECUTABLE), str(STDLIB))


def test_another_file_of_the_interpreter_is_another_input(tmp_path: Path) -> None:
    module = tmp_path / "os.py"
    module.write_text("a = 1\n")
    before = _fingerprint([], [str(tmp_path)])
    assert _fingerprint([], [str(tmp_path)]) == before
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/os.pyc").write_text("")
    assert _fingerprint([], [str(tmp_path)]) == before
    module.write_text("a = 12\n")
    assert _fingerprint([], [str(tmp_path)]) != before


def test_a_server_that_does_not_answer_is_not_asked_again_and_again() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert "refused" in _unreachable(f"http://127.0.0.1:{closed.getsockname()[1]}/a.tar.gz")
    assert _unreachable("file:///nowhere") == ""
