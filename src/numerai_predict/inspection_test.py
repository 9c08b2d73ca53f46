import bz2
import functools
import gzip
import io
import json
import lzma
import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
import types
from pathlib import Path

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerai_predict import inspection, inspection_corpus, pickle_machine
from numerai_predict.bytecode import Code, pythons, spoken
from numerai_predict.images import IMAGES
from numerai_predict.opcodes import OPCODES

if cloudpickle.__version__.startswith("2."):
    from cloudpickle.cloudpickle_fast import _code_reduce
else:
    from cloudpickle.cloudpickle import _code_reduce

HERE = sys.version_info[:2]
ALL_PYTHONS = sorted(OPCODES)
# 3.9 changed little: most functions compile to the same in 3.8.
OLD = {(3, 8), (3, 9)}
DIFFER_IN_3_9 = ["comparisons", "coroutine", "keywords", "logic", "loop", "slices", "try_except"]
# Neither has a method called, an attribute loaded or a global read.
SAME_IN_3_11_AND_3_12 = [*inspection_corpus.TRIVIAL, "closure"]


def inspect(content, name="model.pkl"):
    return inspection.inspect(io.BytesIO(content), name)


def interpreter(python):
    """One of this machine's, on the path or of pyenv."""
    name = "python{}.{}".format(*python)
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which(name), *map(str, sorted(root.glob(f"versions/*/bin/{name}")))]
    for path in filter(None, found):
        if not subprocess.run([path, "-c", ""], capture_output=True).returncode:
            return path
    return None


@pytest.fixture(scope="session")
def pickled_by(tmp_path_factory):
    """By Python: a folder of the corpus as that Python pickles it. Skips if it is not here."""

    @functools.cache
    def pickled(python):
        path = sys.executable if python == HERE else interpreter(python)
        if not path:
            pytest.skip("no python{}.{} on this machine".format(*python))
        folder = tmp_path_factory.mktemp("corpus")
        libraries = folder / "libraries"
        shutil.copytree(Path(cloudpickle.__file__).parent, libraries / "cloudpickle")
        subprocess.run(
            [path, inspection_corpus.__file__, folder],
            check=True,
            env={"PYTHONPATH": str(libraries), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        return folder

    return pickled


def corpus(folder):
    return {path.stem: inspect(path.read_bytes()) for path in folder.glob("*.pkl")}


@pytest.mark.parametrize("python", ALL_PYTHONS, ids=str)
def test_pickles_name_the_python_that_made_them(python, pickled_by):
    found = corpus(pickled_by(python))
    assert {*inspection_corpus.corpus(), "traced"} == set(found)
    assert [name for name, made in found.items() if made.fault or not made.complete] == []
    assert found.pop("by_name").pythons is None
    for name, made in found.items():
        expected = {python}
        if python in OLD and name not in DIFFER_IN_3_9 and made.pythons != expected:
            expected = OLD
        if python in [(3, 11), (3, 12)] and name in SAME_IN_3_11_AND_3_12:
            expected = made.pythons & {(3, 11), (3, 12)} | {python}
        assert made.pythons == expected, name


@pytest.mark.parametrize("python", ALL_PYTHONS, ids=str)
def test_no_python_refuses_its_own_pickles_nor_takes_those_of_others(python, pickled_by):
    found = corpus(pickled_by(python))
    assert [name for name, made in found.items() if made.mismatch(python)] == []
    for other in set(ALL_PYTHONS) - {python} - (OLD if python in OLD else set()):
        taken = [name for name, made in found.items() if not made.mismatch(other)]
        assert set(taken) <= {"by_name", *SAME_IN_3_11_AND_3_12}


def test_a_mismatch_names_the_right_image(pickled_by):
    newest = IMAGES[-1]
    image = "numerai_predict_py_{}_{}".format(*newest)
    made = corpus(pickled_by(newest))["attribute_calls"]
    assert made.mismatch((3, 9, 18)) == (
        f"its functions were compiled by Python {spoken([newest])}, this is Python 3.9: "
        f"run it with {image}"
    )
    assert made.images() == (image,)


def test_a_mismatch_without_image_says_which_pythons_have_one(pickled_by):
    made = corpus(pickled_by((3, 8)))["try_except"]
    assert made.mismatch((3, 11)) == (
        "its functions were compiled by Python 3.8, this is Python 3.11: "
        f"there is no image for it: make the pickle again with Python {spoken(IMAGES)}"
    )
    assert made.images() == ()


def test_images_are_those_that_have_what_a_pickle_imports(pickled_by):
    content = (pickled_by((3, 11)) / "attribute_calls.pkl").read_bytes()
    both = inspect(b"ctorch.nn\nLinear\n0cpandas\nDataFrame\n0" + content[2:])
    assert both.images() == ("numerai_predict_py_3_11_full",)
    assert "run it with numerai_predict_py_3_11_full" in both.mismatch((3, 12))


def test_where_missing_packages_are():
    made = inspect(b"(ctorch.nn\nLinear\nctorch\ndevice\ncmy_own.part\nmodel\nt.")
    image = "numerai_predict_py_{}_{}_full".format(*HERE)
    assert "here: my_own: no image has it. If" in made.table()
    assert made.lack().endswith(f"; torch: {image} has it")


def test_functions_of_several_pythons(pickled_by):
    contents = [
        (pickled_by(python) / "comparisons.pkl").read_bytes() for python in ((3, 11), (3, 13))
    ]
    # Two pickles, put into one.
    both = inspect(contents[0][:-1] + contents[1].removeprefix(b"\x80\x05"))
    assert both.fault is None
    for python in ALL_PYTHONS:
        assert "compiled by different Pythons ('comparisons' by 3.1" in both.mismatch(python)


def codes_of(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_of(constant)


def arguments_of(code):
    """As cloudpickle gives them to `types.CodeType`."""
    return _code_reduce(code)[1]


@pytest.mark.parametrize(
    "module",
    [
        *("argparse", "ast", "asyncio/base_events", "collections/__init__", "contextlib"),
        *("dataclasses", "datetime", "difflib", "email/message", "enum", "functools", "heapq"),
        *("inspect", "logging/__init__", "pdb", "pickle", "pickletools", "statistics"),
        *("subprocess", "tarfile", "turtle", "typing", "unittest/mock", "zoneinfo/_zoneinfo"),
    ],
)
def test_this_pythons_own_library_is_never_taken_for_anothers(module):
    source = Path(sysconfig.get_path("stdlib"), f"{module}.py").read_text(encoding="utf-8")
    for code in codes_of(compile(source, module, "exec", dont_inherit=True)):
        read = Code.from_arguments(arguments_of(code))
        assert read
        assert HERE in pythons(read, trust_line_table=True), code.co_name


def assembled(*units, constants=(None,), names=(), variables=("x",)):
    """A pickle of a function, of code units (opcode, argument) since Python 3.11."""
    code = b"".join(bytes(unit) for unit in units)
    before, after = (1, 0, 0, 1, 2, 3), ("model.py", "predict", "predict", 1, b"", b"", (), ())
    arguments = (*before, code, constants, names, variables, *after)
    return b"\x80\x03ctypes\nCodeType\n" + pickle.dumps(arguments, 3)[2:-1] + b"R."


# return x.rank(1), put together from Python 3.14's opcode table: no interpreter is at hand.
RESUME, X, RANK, ONE, CALL, RETURN = (128, 0), (86, 0), (80, 1), (94, 1), (52, 1), (35, 0)
CACHE = (0, 0)
RANKED = [RESUME, X, RANK, *[CACHE] * 9, ONE, CALL, *[CACHE] * 3, RETURN]


def test_bytecode_of_python_3_14():
    made = inspect(assembled(*RANKED, names=("rank",)))
    assert made.pythons == {(3, 14)}
    assert "there is no image for it" in made.mismatch(HERE)


@pytest.mark.parametrize(
    "code",
    [
        [RESUME, X, RANK, *[(0, 1)] * 9, ONE, CALL, *[CACHE] * 3, RETURN],
        [RESUME, X, RANK, *[CACHE] * 8, ONE, CALL, *[CACHE] * 3, RETURN],
        [RESUME, (77, 2), *RANKED[1:]],  # a jump to the caches
        [RESUME, (77, 200), *RANKED[1:]],
        [RESUME, (86, 1), *RANKED[2:]],  # the second of one local variables
        [RESUME, (82, 1), *RANKED[2:]],  # of one constants
        [RESUME, X, (80, 3), *RANKED[3:]],  # of one names
        [RESUME, (56, 6 << 5), CACHE, *RANKED[1:]],  # of six comparisons, the seventh
    ],
    ids="cache fewer-caches middle outside local constant name comparison".split(),
)
def test_bytecode_that_breaks_one_rule_is_no_pythons(code):
    assert inspect(assembled(*code, names=("rank",))).pythons == set()


def test_bytecode_of_no_known_python():
    made = inspect(assembled((255, 255)))
    assert made.pythons == set()
    assert "'predict' was compiled by a Python that is not known here" in made.mismatch(HERE)


def function(x):
    return x["feature_a"].rank(pct=True).to_frame("prediction")


@pytest.mark.parametrize("protocol", range(6))
def test_all_protocols(protocol):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    made = inspect(cloudpickle.dumps(function, protocol=protocol))
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert made.fault is None
    assert made.pythons == {HERE}
    assert made.functions == (("function", frozenset([HERE])),)
    assert made.protocol == (protocol if protocol > 1 else 0)  # 0 and 1 do not say which
    assert "_make_function" in made.names["cloudpickle.cloudpickle"]


def test_imports_say_whether_they_are_here_and_import_nothing():
    made = inspect(
        b"(cnot_here.at_all\nmodel\ncnumpy.not_here\nmodel\ncxml.dom.pulldom\nparse\n"
        b"c_made_by_a_package\nmodel\ncos.path\njoin\nclib2to3\nx\nt."
    )
    status = {found.module: found.status for found in made.imports}
    status.pop("lib2to3")
    assert status == {
        "not_here.at_all": "missing",
        "numpy.not_here": "unclear",
        "xml.dom.pulldom": "installed",
        "_made_by_a_package": "unclear",
        "os.path": "installed",
    }
    assert "xml.dom.pulldom" not in sys.modules
    assert "not_here.at_all" in made.missing()
    assert made.mismatch() is None


def test_a_module_in_a_functions_globals_is_an_import():
    def predict(x):
        return json.dumps(x)

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    made = inspect(cloudpickle.dumps(predict))
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert made.names["json"] == ()


def ubjson(*version):
    parts = b"".join(b"i%c" % part for part in version)
    return b"{L" + bytes(3000) + b"version[#L" + bytes(7) + b"\x03" + parts + b"}"


@pytest.mark.parametrize(
    "recorded, versions",
    [
        ({"_sklearn_version": "1.6.1"}, {"scikit-learn": "1.6.1"}),
        (
            [{"_sklearn_version": "1.6.1"}, {"_sklearn_version": "1.5.0"}],
            {"scikit-learn": "1.6.1, 1.5.0"},
        ),
        ({"handle": bytearray(ubjson(3, 2, 0))}, {"xgboost": "3.2.0"}),
        (b"{L" + bytes(200_000) + ubjson(3, 0, 49), {"xgboost": "3.0.49"}),
        (b'{"learner":{}' + b" " * 70 + b',"version":[1,7,6]}', {"xgboost": "1.7.6"}),
        ("tree\nversion=v4\n" + "x" * 100_000, {"lightgbm (model text)": "v4"}),
        (b"CBM1" + bytes(80) + b"CatBoost release 1.2.10. commit", {"catboost": "1.2.10"}),
        ("the text says version=v4", {}),
    ],
    ids=("sklearn several xgboost xgboost-big xgboost-json lightgbm catboost none").split(),
)
def test_versions_that_libraries_record(recorded, versions):
    assert inspect(pickle.dumps(recorded)).versions == versions


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_pickles_whatever_their_name(compress):
    content = pickle.dumps({"_sklearn_version": "1.6.1", "fill": list(range(10_000))})
    made = inspect(compress(content), "model.pkl")
    assert made.fault is None
    assert made.versions == {"scikit-learn": "1.6.1"}
    assert made.compression in ("gzip", "bzip2", "xz")
    assert "cannot be decompressed" in inspect(compress(content)[:-20]).fault


@pytest.mark.parametrize(
    "content, fault",
    [
        (b"", "is empty"),
        (pickle.dumps([1, 2])[:-3], "breaks off after 17 bytes"),
        (b"\x80\x06.", "has pickle protocol 6, but Python reads up to 5"),
        (b"\x80\x04\xff", r"has no pickle opcode at byte 2, but b'\xff'"),
        (b"\x80\x04h\x07.", "recalls what it never stored at byte 4"),
        (b"\x80\x04.", "takes from an empty stack"),
        (b"\x80\x04R.", "takes from an empty stack"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc", "breaks off after 14 bytes"),
        (b"<!DOCTYPE html><html>", "is no pickle but an HTML page"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied', "is no pickle but an XML error"),
        (b'{"learner": {}}', "a model that XGBoost saved itself"),
        (b'{"cells": []}', "is no pickle but JSON"),
        (b"tree\nversion=v4\n", "a model that LightGBM saved itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"PK\x03\x04" + bytes(50), "a zip archive"),
        (b"\x28\xb5\x2f\xfd" + bytes(50), "zstd"),
        (b"x\x9c" + bytes(50), "zlib"),
        (b"PAR1" + bytes(50), "a parquet file"),
        (b"\x80\x04Kx" + b"Q.", "persistent ids"),
        (b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n\xff\xff", "written by joblib.dump"),
    ],
    ids=str,
)
def test_what_is_no_pickle_is_named(content, fault):
    made = inspect(content)
    assert fault in made.fault
    assert "cannot be loaded" in made.table()
    assert made.mismatch() is None
    assert not unpickles(content)


def unpickles(content):
    try:
        pickle.loads(content)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("begin", [b"\x80\x05\x8e" + (1 << 40).to_bytes(8, "little"), b"I"])
def test_what_is_too_long_is_not_read_to_its_end(begin, monkeypatch):
    monkeypatch.setattr(pickle_machine, "MAX_BYTES", 4 << 20)
    file = io.BytesIO(gzip.compress(begin + bytes(64 << 20)))
    found = inspection.inspect(file, "bomb.pkl")
    assert found.fault is None
    assert not found.complete


def test_ten_megabytes_of_zeros_behind_gzip():
    assert "has no pickle opcode at byte 0" in inspect(gzip.compress(bytes(10 << 20))).fault


@pytest.mark.parametrize(
    "content",
    [
        b"N" + b"2\x86" * 200_000 + b".",  # each pair holds the last one twice
        b"N" + b"\x85" * 200_000 + b".",
        b"(" * 200_000 + b"t" * 200_000 + b".",
        b"\x80\x04N\x94" + b"".join(b"h%ch%c\x86\x94" % (n, n) for n in range(200)) + b".",
        b"I" + b"9" * 200_000 + b"\n.",
        b"V" + b"x" * 200_000 + b"\n.",
    ],
    ids=["doubling", "deep", "marks", "memo", "digits", "line"],
)
def test_bombs_cost_no_more_than_their_size(content):
    made = inspect(content)
    assert made.fault is None
    assert len(made.table()) < 2000


def test_a_big_function_repeated_without_end_is_left_at_some_point(monkeypatch):
    monkeypatch.setattr(inspection, "_MAX_BYTECODE", 1000)
    content = assembled(*[(9, 0)] * 300)
    made = inspect(b"(" + b"".join([content[2:-1]] * 10) + b"t.")
    assert made.fault is None
    assert not made.complete


def test_a_pickle_without_end_is_left_at_some_point(monkeypatch):
    monkeypatch.setattr(pickle_machine, "MAX_OPCODES", 1000)
    made = inspect(b"N0" * 600 + b"N.")
    assert (made.fault, made.complete) == (None, False)
    assert "only the beginning was looked at" in made.table()


@given(st.binary(max_size=200))
def test_any_bytes_are_inspected_without_an_exception(content):
    made = inspect(content)
    json.dumps(made.to_json())
    assert made.table().isprintable() or "\n" in made.table()


@given(st.data())
def test_any_damage_is_inspected_without_an_exception(data):
    content = bytearray(cloudpickle.dumps(lambda x: [y for y in x if y.real > 1]))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    made = inspect(bytes(content[: data.draw(st.integers(0, len(content)))]))
    json.dumps(made.to_json())
    made.table()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.frozensets(st.integers())
        | st.tuples(inner, inner)
    ),
)


@given(plain, st.integers(0, 5))
def test_what_can_be_unpickled_has_no_fault(value, protocol):
    made = inspect(pickle.dumps(value, protocol))
    assert (made.fault, made.complete, made.pythons) == (None, True, None)


def test_a_pickles_names_do_not_reach_the_terminal_as_commands():
    table = inspect(b"c\x1b[31m.red\nname\x07\n.", "\x1b[2Jmodel.pkl").table()
    assert "\x1b" not in table and "\x07" not in table


def test_the_table():
    content = b"(cpandas\nDataFrame\n}X\x10\x00\x00\x00_sklearn_versionX\x05\x00\x00\x000.0.1st."
    assert inspect(content).table().splitlines() == [
        "model.pkl",
        "",
        "size             54 bytes",
        "pickle protocol  0",
        "images           "
        + ", ".join("numerai_predict_py_{}_{}".format(*image) for image in IMAGES),
        "",
        "library       recorded  here",
        f"scikit-learn  0.0.1     {inspection.installed_version('scikit-learn') or '-'}",
        "",
        "import  here       names",
        "pandas  installed  DataFrame",
        "",
        "Verdict: nothing speaks against Python {}.{}, which is here".format(*HERE),
    ]
