from __future__ import annotations

import importlib.util
import marshal
import sys
from pathlib import Path
from types import CodeType

import pytest

from oci.tool.bytecode import GROUP, compile_tree

PREFIX = "/usr/lib/python3/dist-packages"
SOURCE = """
NAMES = {{"a", "b", "name{i}", "shared"}}
def function{i}(shared, name{i}="shared"):
    return lambda b: shared in ("a", "b", name{i}) or b in {{"x", "y", "shared"}}
"""


def tree(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(SOURCE.format(i=name.count("1")))
    return root


def pycs(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.pyc")}


def pyc(file: Path) -> bytes:
    return Path(importlib.util.cache_from_source(str(file))).read_bytes()


def code_objects(code: CodeType) -> list[CodeType]:
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return [code, *(found for const in inner for found in code_objects(const))]


def test_a_pyc_is_never_out_of_date(tmp_path: Path) -> None:
    tree(tmp_path, "pkg/mod.py")
    compile_tree(tmp_path, PREFIX, [sys.executable])
    header = pyc(tmp_path / "pkg/mod.py")[:16]
    unchecked_hash = (0b01).to_bytes(4, "little")
    source_hash = importlib.util.source_hash((tmp_path / "pkg/mod.py").read_bytes())
    assert header == importlib.util.MAGIC_NUMBER + unchecked_hash + source_hash


def test_tracebacks_name_the_path_in_the_image(tmp_path: Path) -> None:
    tree(tmp_path, "pkg/mod.py")
    compile_tree(tmp_path, PREFIX, [sys.executable])
    codes = code_objects(marshal.loads(pyc(tmp_path / "pkg/mod.py")[16:]))
    assert len(codes) == 3
    assert {code.co_filename for code in codes} == {f"{PREFIX}/pkg/mod.py"}


def compiled(root: Path, processors: int) -> dict[str, bytes]:
    # Runs the program that it is given, on a machine of so many processors.
    program = f"import os, runpy, sys; os.cpu_count = lambda: {processors}; del sys.argv[:2]; "
    program += "runpy.run_path(sys.argv[0], run_name='__main__')"
    compile_tree(root, PREFIX, [sys.executable, "-c", program])
    return pycs(root)


def test_place_order_and_number_of_processors_do_not_matter(tmp_path: Path) -> None:
    names = [f"pkg{i % 3}/mod{i}.py" for i in range(2 * GROUP + 1)]
    one = compiled(tree(tmp_path / "one", *names), processors=1)
    two = compiled(tree(tmp_path / "another" / "place", *reversed(names)), 3)
    assert len(one) == len(names)
    assert one == two


@pytest.mark.parametrize(
    "content",
    [
        b"print 'Python 2'",
        b"{{ template }} = 1",
        b"\xff\xfe",
        b"# coding: klingon",
        b"a = 1\0",
        b"(" * 9999,
    ],
    ids=["python-2", "template", "utf-16", "coding", "null", "deep"],
)
def test_a_file_that_does_not_compile_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    tree(tmp_path, "a.py", "z.py")
    (tmp_path / "broken.py").write_bytes(content)
    compile_tree(tmp_path, PREFIX, [sys.executable])
    tag = sys.implementation.cache_tag
    assert set(pycs(tmp_path)) == {f"__pycache__/a.{tag}.pyc", f"__pycache__/z.{tag}.pyc"}
    assert (tmp_path / "broken.py").read_bytes() == content


def test_a_folder_may_be_called_like_a_module(tmp_path: Path) -> None:
    tree(tmp_path, "templates.py/mod.py")
    compile_tree(tmp_path, PREFIX, [sys.executable])
    assert len(pycs(tmp_path)) == 1


def test_nothing_to_compile(tmp_path: Path) -> None:
    compile_tree(tmp_path, PREFIX, [sys.executable])
    assert not pycs(tmp_path)
