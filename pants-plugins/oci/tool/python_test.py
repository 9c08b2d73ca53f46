from __future__ import annotations

import hashlib
import marshal
import sys
import zipfile
from pathlib import Path

import pytest
from uv import find_uv_bin

from oci.tool.layer import Tree
from oci.tool.python import installed_tree, source_tree

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


def install(wheel: Path, version: str = "3.11", pin: str = "") -> Tree:
    pin = pin or f"tiny==1 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    Path("pins.txt").write_text(f"{pin}\n")
    image = (version, "x86_64-manylinux_2_36", SITE_PACKAGES)
    return installed_tree(Path("pins.txt"), Path(find_uv_bin()), [sys.executable], *image)


def test_packages_are_compiled_and_have_no_console_scripts(wheel: Path) -> None:
    files = {path[len(ROOT) + 1 :]: entry.read() for path, entry in install(wheel).files()}
    modules = {path for path in files if not path.startswith("tiny-1.dist-info/")}
    assert modules == {
        *("tiny/__init__.py", f"tiny/__pycache__/__init__.{TAG}.pyc", "tiny/bin/data"),
    }
    recorded = {line.split(",")[0] for line in files["tiny-1.dist-info/RECORD"].decode().split()}
    assert recorded == {path for path in files if not path.endswith(".pyc")}


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
    wheel: Path, capfd: pytest.CaptureFixture[str], arguments: dict[str, str], says: str
) -> None:
    with pytest.raises(
        SystemExit, match="^uv could not install pins.txt for Python 3.1.*; see above"
    ):
        install(wheel, **arguments)
    assert says in capfd.readouterr().err


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
