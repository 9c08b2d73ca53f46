"""What only an image's own Python can check; `image.yaml` says the rest, and runs this.

    python image_checks.py                        all but the packages
    python image_checks.py --imports FOLDER       every package of the requirements there imports

Prints every check and what it found wrong; exits 1 if anything was. The image's description,
image.json, lies in the working directory.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import datetime
import email
import importlib
import importlib.metadata
import importlib.util
import json
import locale
import os
import platform
import sqlite3
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

# 3rdparty/python/parity/exceptions.toml has the reasons.
NOT_IMPORTABLE = (
    "tensorflow-decision-forests",
    "tensorflow-estimator",
    "tensorflow-io-gcs-filesystem",
)
LIBRARIES_ONLY = ("nvidia-", "cuda-")

CHECKS: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS.append(function)
    return function


# Those that need libraries; some interpreters link them statically.
EXTENSIONS = {"_bz2", "_ctypes", "_curses", "_decimal", "_elementtree", "_hashlib", "_lzma"}
EXTENSIONS |= {"_multiprocessing", "_posixshmem", "_sqlite3", "_ssl", "_uuid", "readline", "zlib"}


@check
def extension_modules_of_the_standard_library_find_their_libraries() -> None:
    files = Path(sysconfig.get_path("platstdlib"), "lib-dynload").glob("*.so")
    for module in EXTENSIONS | {file.name.partition(".")[0] for file in files}:
        importlib.import_module(module)


@check
def ssl_trusts_the_usual_authorities() -> None:
    authorities = ssl.create_default_context().cert_store_stats()["x509_ca"]
    assert authorities > 100, f"{authorities} authorities"


@check
def sqlite_runs_queries() -> None:
    with sqlite3.connect(":memory:") as connection:
        assert connection.execute("select 6 * 7").fetchone() == (42,)


@check
def ctypes_finds_libraries_by_name() -> None:
    for name in ("c", "m", "gomp", "stdc++", "gcc_s"):
        file = ctypes.util.find_library(name)
        assert file, f"no library called {name}"
        ctypes.CDLL(file)


@check
def the_loaders_cache_is_what_ldconfig_makes() -> None:
    def listed(cache: str) -> set[str]:
        return {line for line in ldconfig("-p", "-C", cache).splitlines() if "=>" in line}

    with tempfile.TemporaryDirectory() as folder:
        ldconfig("-X", "-C", f"{folder}/ld.so.cache")
        ours, real = listed("/etc/ld.so.cache"), listed(f"{folder}/ld.so.cache")
    assert ours and ours == real, f"differs in {sorted(ours ^ real)}"


@check
def text_is_utf8() -> None:
    locale.setlocale(locale.LC_ALL, "")
    assert locale.nl_langinfo(locale.CODESET) == "UTF-8", locale.nl_langinfo(locale.CODESET)
    assert sys.getfilesystemencoding() == sys.stdout.encoding == "utf-8"


@check
def time_zones_are_the_systems_and_local_time_is_utc() -> None:
    # Not from PyPI's tzdata, where zoneinfo looks next.
    assert any(Path(folder, "Europe/Berlin").exists() for folder in zoneinfo.TZPATH)
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    summer = datetime.datetime(2026, 7, 1, tzinfo=berlin)
    assert summer.utcoffset() == datetime.timedelta(hours=2), summer
    assert Path("/etc/localtime").read_bytes().startswith(b"TZif")
    assert time.tzname == ("UTC", "UTC"), time.tzname


@check
def packages_are_found_without_environment_variables() -> None:
    code = "import lightgbm, numerai_predict"
    subprocess.run([sys.executable, "-I", "-c", code], env={}, cwd="/", check=True)


@check
def processes_share_work_among_the_cores() -> None:
    joblib = importlib.import_module("joblib")
    with warnings.catch_warnings():
        # joblib 1.3, which the 3.10 image has, asks lscpu, which no image has; it goes on with a warning.
        warnings.simplefilter("default" if joblib.__version__.startswith("1.3.") else "error")
        assert joblib.cpu_count(only_physical_cores=True) >= 1
    assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]


@check
def packages_cannot_be_installed() -> None:
    assert not importlib.util.find_spec("pip"), "pip can be imported"


@check
def compiled_files_are_of_their_modules() -> None:
    # The first folder is this file's.
    found = (module for folder in sys.path[1:] for module in Path(folder).rglob("*.py"))
    modules = [module for module in found if not module.is_symlink()]
    assert len(modules) > 5000, f"only {len(modules)} modules"
    for module in modules:
        # PEP 552: the hash is only found in files that say so, which image.yaml expects.
        expected = importlib.util.source_hash(module.read_bytes())
        compiled = Path(importlib.util.cache_from_source(str(module)))
        # image.yaml names what may lack it.
        if not compiled.exists():
            continue
        with compiled.open("rb") as pyc:
            assert pyc.read(16)[8:] == expected, f"{pyc.name} is of another {module}"


@check
def scanners_find_every_debian_package() -> None:
    status = Path("/var/lib/dpkg/status.d")
    found = {file.name for file in status.iterdir() if file.suffix != ".md5sums"}
    inputs = image()["inputs"]
    assert found >= set(inputs["os"]), set(inputs["os"]) - found
    pins = {name: pin for layer in inputs.values() for name, pin in layer.items()}
    for name in found:
        fields = email.message_from_string((status / name).read_text())
        assert f"{fields['Package']} {fields['Version']}" == f"{name} {pins[name].split()[0]}", name


@check
def the_predictor_knows_which_modules_this_image_has() -> None:
    from numerai_predict.images import MODULES

    image = "{}_{}".format(*sys.version_info)
    flavours = {image}
    if os.environ.get("NUMERAI_PREDICT_IMAGE", "").endswith("_full"):
        flavours.add(f"{image}_full")
    if platform.machine() == "x86_64":
        flavours |= {f"{flavour}/amd64" for flavour in flavours}
    known = {module for module, images in MODULES.items() if flavours & set(images.split())}
    packages = {each.name: top_level_modules(each) for each in importlib.metadata.distributions()}
    absent = known.difference(*packages.values())
    assert not absent, f"3rdparty/python/modules.toml: there is no {sorted(absent)}"
    for name, modules in packages.items():
        public = {module for module in modules if not module.startswith("_")}
        if public and not name.startswith(("cuda", "nvidia")):
            assert public & known, f"3rdparty/python/modules.toml: {name} has {public}"


def every_package_imports(requirements: Path) -> None:
    """What the image's layers should hold is there, in that version, and all that is there imports.

    `requirements` is a folder: py311/catboost.txt is what the layer py311-catboost holds.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found = {canonicalize_name(each.name): each for each in importlib.metadata.distributions()}
    missing = image().get("labels", {}).get("oci.missing_packages", "").split(",")
    layers = {layer["what"] for layer in image()["layers"]}
    files = [
        file for file in requirements.iterdir() if f"{requirements.name}-{file.stem}" in layers
    ]
    assert files, f"no layer holds what {requirements} has"
    for line in (line for file in files for line in file.read_text().splitlines()):
        if line.startswith((" ", "#")):
            continue
        requirement = Requirement(line.rstrip("\\ "))
        name = canonicalize_name(requirement.name)
        if (requirement.marker is None or requirement.marker.evaluate()) and name not in missing:
            assert name in found, f"{name} is not installed"
            version = found[name].version
            assert version in requirement.specifier, f"{name} is {version}, not as in {line}"
    for name, distribution in found.items():
        modules = top_level_modules(distribution)
        assert modules or name.startswith(LIBRARIES_ONLY), f"{name} has no modules"
        for module in () if name in NOT_IMPORTABLE else modules:
            importlib.import_module(module)


def top_level_modules(distribution: importlib.metadata.Distribution) -> set[str]:
    names = {
        file.parts[0].partition(".")[0] if len(file.parts) == 1 else file.parts[0]
        for file in distribution.files or ()
        if file.suffix in (".py", ".so")
    }
    return {name for name in names if name.isidentifier()}


def image() -> dict[str, Any]:
    """The description of the image's one platform."""
    (description,) = json.loads(Path("image.json").read_text())["platforms"].values()
    return description


def ldconfig(*args: str) -> str:
    argv = ("/usr/sbin/ldconfig", *args)
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--imports", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    if args.imports:
        every_package_imports(args.imports)
        return
    failed = 0
    for function in CHECKS:
        try:
            function()
            result = "ok     "
        except (Exception, SystemExit) as error:
            failed += 1
            result = f"FAILED  {type(error).__name__}: {error}\n       "
        print(result, function.__name__.replace("_", " "), flush=True)
    raise SystemExit(f"{failed} of {len(CHECKS)} checks failed" if failed else 0)


if __name__ == "__main__":
    main()
