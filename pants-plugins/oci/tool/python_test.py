from __future__ import annotations

import base64
import hashlib
import marshal
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

import pytest
from uv import find_uv_bin

from oci.testutil.elf import make_elf
from oci.tool.compatibility import wheels
from oci.tool.layer import Tree
from oci.tool.python import Installed, installed_packages, source_tree
from oci.tool.requirements import CpuIndex, Uv, not_installed, required

SITE_PACKAGES = "/usr/local/lib/python3.11/dist-packages"
ROOT = SITE_PACKAGES.lstrip("/")
TAG = sys.implementation.cache_tag

WHEEL = "tiny-1-cp311-cp311-manylinux_2_17_x86_64.whl"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel that uv finds, and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    files = {
        "tiny/__init__.py": "a = 1\n",
        "tiny/bin/data": "",
        "tiny-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1\nRequires-Dist: big\n",
        "tiny-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n",
        "tiny-1.dist-info/entry_points.txt": "[console_scripts]\ntiny = tiny:main\n",
    }
    record = "tiny-1.dist-info/RECORD"
    with zipfile.ZipFile(WHEEL, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(record, "".join(f"{path},,\n" for path in (*files, record)))
    return tmp_path / WHEEL


def add_to_tiny(files: dict[str, str]) -> None:
    with zipfile.ZipFile(WHEEL, "a") as archive:
        for path, content in files.items():
            archive.writestr(path, content)


def another_wheel(
    name: str,
    tag: str,
    version: str = "1",
    folder: str = ".",
    files: Mapping[str, bytes] = {},
) -> str:
    """Makes it where uv finds it, and returns its hash."""
    file = Path(folder, f"{name}-{version}-{tag}.whl")
    file.parent.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: gpus\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/RECORD", "".join(map(recorded_row, files, files.values())))
    return f"--hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def install(
    wheel: Path,
    version: str = "3.11",
    pin: str = "",
    machine: str = "x86_64",
    omit: Sequence[str] = (),
    cpu_index: Optional[CpuIndex] = None,
    strip: bool = True,
) -> Installed:
    shutil.rmtree("installed", ignore_errors=True)
    pin = pin or f"tiny==1 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    Path("pins.txt").write_text(f"{pin}\n")
    uv = Uv(Path(find_uv_bin()), [sys.executable], version, f"{machine}-manylinux_2_36")
    return installed_packages(Path("pins.txt"), uv, SITE_PACKAGES, omit, cpu_index, strip)


def contents(tree: Tree) -> dict[str, bytes]:
    return {path[len(ROOT) + 1 :]: entry.read() for path, entry in tree.files()}


def recorded(files: dict[str, bytes]) -> set[str]:
    return {line.split(",")[0] for line in files["tiny-1.dist-info/RECORD"].decode().split()}


def test_packages_are_compiled_and_have_no_console_scripts(wheel: Path) -> None:
    files = contents(install(wheel).tree)
    modules = {path for path in files if not path.startswith("tiny-1.dist-info/")}
    assert modules == {
        *("tiny/__init__.py", f"tiny/__pycache__/__init__.{TAG}.pyc", "tiny/bin/data"),
    }
    assert recorded(files) == {path for path in files if not path.endswith(".pyc")}


@pytest.mark.parametrize(
    "omit, dropped",
    [
        ((), {}),
        (("*/tests",), {"tiny/tests/__init__.py": 6, "tiny/deep/tests/data/a.csv": 3}),
        (("*/tests", "!tiny/deep/tests"), {"tiny/tests/__init__.py": 6}),
        (("tiny/deep", "elsewhere"), {"tiny/deep/tests/data/a.csv": 3}),
    ],
    ids=["nothing", "anywhere", "taken-back", "one-folder"],
)
def test_what_is_omitted_is_neither_there_nor_recorded(
    wheel: Path, omit: Sequence[str], dropped: dict[str, int]
) -> None:
    add_to_tiny({"tiny/tests/__init__.py": "b = 2\n", "tiny/deep/tests/data/a.csv": "1,2"})
    everything = contents(install(wheel).tree).keys()
    installed = install(wheel, omit=omit)
    files = contents(installed.tree)
    # Nor is it compiled.
    gone = {*dropped}
    if "tiny/tests/__init__.py" in dropped:
        gone.add(f"tiny/tests/__pycache__/__init__.{TAG}.pyc")
    assert everything - files.keys() == gone
    assert recorded(files) == {path for path in files if not path.endswith(".pyc")}
    assert installed.omitted == {"files": len(dropped), "bytes": sum(dropped.values())}


@pytest.mark.parametrize("strip", [True, False])
def test_libraries_are_stripped_and_recorded_as_they_are(wheel: Path, strip: bool) -> None:
    library, more = make_elf("libtiny.so"), b"debugging information"
    digest = another_wheel("demo", X86_64, files={"demo/libtiny.so": library + more})
    installed = install(wheel, pin=f"demo==1 {digest}", strip=strip)
    files = contents(installed.tree)
    kept = files["demo/libtiny.so"]
    assert kept == (library if strip else library + more)
    assert installed.omitted == {"files": 0, "bytes": len(more) if strip else 0}
    assert recorded_row("demo/libtiny.so", kept) in files["demo-1.dist-info/RECORD"].decode()


def recorded_row(path: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    return f"{path},sha256={digest},{len(content)}\n"


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"version": "3.12"}, "no wheels with a matching Python"),
        ({"pin": f"tiny==1 --hash=sha256:{'0' * 64}"}, "Hash mismatch for `tiny==1`"),
        ({"pin": "tiny==1"}, "all requirements must have a hash"),
    ],
    ids=["no-fitting-wheel", "another-hash", "no-hash"],
)
def test_a_package_that_cannot_be_installed(
    wheel: Path, capfd: pytest.CaptureFixture[str], arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(
        SystemExit, match="^uv could not install tiny of pins.txt for Python 3.1.*; see above"
    ):
        install(wheel, **arguments)
    assert says in capfd.readouterr().err


def test_a_package_without_a_wheel_for_the_machine_is_named(
    wheel: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    both = another_wheel("both", "cp311-cp311-manylinux_2_17_x86_64")
    both += " " + another_wheel("both", "cp311-cp311-manylinux_2_17_aarch64")
    only = another_wheel("only_amd64", "cp311-cp311-manylinux_2_17_x86_64")
    pin = f"both==1 {both}\nOnly.amd64==1 \\\n    {only}"
    assert len(wheels(install(wheel, pin=pin).tree)) == 2
    shown = "uv could not install only-amd64 of pins.txt .* aarch64-manylinux_2_36; .* has a wheel"
    with pytest.raises(SystemExit, match=shown):
        install(wheel, pin=pin, machine="aarch64")
    assert "only-amd64==1 has no wheels" in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize("machine, missing", [("x86_64", []), ("aarch64", ["only-amd64"])])
def test_what_markers_keep_from_a_machine_is_known(
    wheel: Path, machine: str, missing: list[str]
) -> None:
    pure = another_wheel("pure", "py3-none-any")
    only = another_wheel("only_amd64", "cp311-cp311-manylinux_2_17_x86_64")
    pin = (
        f"pure==1 {pure}\n"
        f"Only.amd64==1 ; platform_machine == 'x86_64' \\\n    {only}\n"
        f"windows==1 ; sys_platform == 'win32' {only}"
    )
    names = [wheel["name"] for wheel in wheels(install(wheel, pin=pin, machine=machine).tree)]
    assert not_installed(Path("pins.txt"), names) == missing


@pytest.mark.parametrize(
    "pin", ["# nothing", "windows==1 ; sys_platform == 'win32' --hash=sha256:0"]
)
def test_there_may_be_nothing_to_install(wheel: Path, pin: str) -> None:
    assert install(wheel, pin=pin).tree == Tree()


X86_64 = "cp311-cp311-manylinux_2_17_x86_64"


def folder_of_wheels(folder: Path) -> str:
    (folder / "demo").mkdir(parents=True, exist_ok=True)
    return str(folder / "demo")


def package_index(folder: Path) -> str:
    if links := [f'<a href="{file.name}">{file.name}</a>' for file in folder.glob("demo/*.whl")]:
        (folder / "demo/index.html").write_text("\n".join(links))
    return folder.as_uri()


@pytest.mark.parametrize("address_of", [folder_of_wheels, package_index])
def test_the_cpu_index_has_its_own_build_of_what_is_locked(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, address_of: Callable[[Path], str]
) -> None:
    monkeypatch.delenv("UV_NO_INDEX")
    monkeypatch.setenv("UV_OFFLINE", "1")
    tiny = hashlib.sha256(wheel.read_bytes()).hexdigest()
    pin = f"demo==1 ; python_version >= '3' \\\n    {another_wheel('demo', X86_64)}\n"
    own = another_wheel("demo", X86_64, "1+cpu", "cpu/demo")
    another_wheel("demo", X86_64, "2+cpu", "cpu/demo")
    another_wheel("demo", X86_64.replace("311", "312"), "1+cpu", "cpu/demo")
    index = CpuIndex(address_of(Path("cpu").absolute()), ["Demo"])
    installed = install(wheel, pin=f"{pin}tiny==1 --hash=sha256:{tiny}", cpu_index=index)
    versions = {found["name"]: found["version"] for found in wheels(installed.tree)}
    assert versions == {"demo": "1+cpu", "tiny": "1"}
    told = {name: str(pin) for name, pin in installed.from_cpu_index.items()}
    assert told == {"demo": f"1+cpu {own.removeprefix('--hash=')}"}
    assert not [path for path, _ in installed.tree.files() if path.endswith("uv_cache.json")]


def test_without_a_cpu_index_the_locked_build_is_taken(wheel: Path) -> None:
    installed = install(wheel, pin=f"demo==1 {another_wheel('demo', X86_64)}")
    assert [found["version"] for found in wheels(installed.tree)] == ["1"]
    assert installed.from_cpu_index == {}


@pytest.mark.parametrize("address_of", [folder_of_wheels, package_index])
@pytest.mark.parametrize(
    "held",
    [[("1+cpu", "aarch64")], [("2+cpu", "x86_64")], []],
    ids=["other-machine", "other-version", "nothing"],
)
def test_nothing_stands_in_for_what_the_cpu_index_lacks(
    wheel: Path,
    monkeypatch: pytest.MonkeyPatch,
    address_of: Callable[[Path], str],
    held: list[tuple[str, str]],
) -> None:
    monkeypatch.delenv("UV_NO_INDEX")
    locked = another_wheel("demo", X86_64, folder="pypi/demo")
    monkeypatch.setenv("UV_DEFAULT_INDEX", package_index(Path("pypi").absolute()))
    for version, machine in held:
        another_wheel("demo", X86_64.replace("x86_64", machine), version, "cpu/demo")
    index = CpuIndex(address_of(Path("cpu").absolute()), ["demo"])
    says = "uv could not install demo==1 of pins.txt for Python 3.11 on x86_64.* GPUs; see above"
    with pytest.raises(SystemExit, match=says):
        install(wheel, pin=f"demo==1 {locked}", cpu_index=index)
    assert len(wheels(install(wheel, pin=f"demo==1 {locked}").tree)) == 1


def test_the_cpu_index_is_not_asked_for_what_other_machines_need(wheel: Path) -> None:
    pin = f"demo==1 ; platform_machine == 'aarch64' {another_wheel('demo', X86_64)}"
    Path("cpu").mkdir()
    index = CpuIndex(f"{Path.cwd()}/cpu", ["demo", "elsewhere"])
    installed = install(wheel, pin=pin, cpu_index=index)
    assert (installed.tree, installed.from_cpu_index) == (Tree(), {})


def test_what_is_required_is_named_once(tmp_path: Path) -> None:
    file = tmp_path / "pins.txt"
    file.write_text("B.b==1 ; python_version < '3' --hash=1\nb-b==2\\\n  --hash=1\n# c==1\na==1\n")
    assert required(file) == ["a", "b-b"]


def test_sources_are_compiled(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/mod.py").write_text("a = 1\n")
    (tmp_path / "pkg/data.json").write_text("{}")
    tree = source_tree(tmp_path, [sys.executable], SITE_PACKAGES)
    pyc = f"{ROOT}/pkg/__pycache__/mod.{TAG}.pyc"
    assert [path for path, _ in tree.files()] == [
        pyc,
        f"{ROOT}/pkg/data.json",
        f"{ROOT}/pkg/mod.py",
    ]
    code = marshal.loads(tree.entries[pyc].read()[16:])
    assert code.co_filename == f"{SITE_PACKAGES}/pkg/mod.py"
