"""What users of an image rely on, checked inside it by its own Python: `./pants test images:`.

Prints every check and what it found wrong; exits 1 if anything was. The image's description,
image.json, lies in the working directory.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import datetime
import email
import grp
import importlib
import importlib.metadata
import importlib.util
import json
import locale
import os
import platform
import pwd
import shutil
import sqlite3
import ssl
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"

# All that can be started by name: neither a shell nor a compiler nor a package manager.
PROGRAMS = {"python3", f"python{MINOR}", f"pdb{MINOR}", "cat", "ldconfig"}

# Modules that distributions declare and do not have at their top level.
NOT_TOP_LEVEL = {"__dummy__", "_catboost", "_hnsw"}

# What the engine puts over the image, and where anybody may write.
NOT_OF_THE_IMAGE = {"/dev", "/proc", "/sys", "/tmp", os.getcwd()}

CHECKS: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS.append(function)
    return function


@check
def python3_is_the_interpreter() -> None:
    for name in ("/usr/bin/python3", f"/usr/bin/python{MINOR}"):
        assert os.path.realpath(name) == os.path.realpath(sys.executable), name
    assert shutil.which("python3") == "/usr/bin/python3", "PATH has another"
    assert MINOR == sys.argv[1], f"this is Python {MINOR}"


@check
def extension_modules_of_the_standard_library_find_their_libraries() -> None:
    modules = list(Path(sysconfig.get_path("platstdlib"), "lib-dynload").glob("*.so"))
    assert modules
    for module in modules:
        importlib.import_module(module.name.partition(".")[0])


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
def users_have_names() -> None:
    assert pwd.getpwuid(0).pw_name == "root" and pwd.getpwnam("root").pw_dir == "/root"
    assert pwd.getpwuid(65534).pw_name == "nobody"
    assert grp.getgrgid(0).gr_name == "root" and grp.getgrgid(65534).gr_name == "nogroup"


@check
def the_distribution_is_named() -> None:
    release = platform.freedesktop_os_release()
    assert (release["ID"], release["VERSION_CODENAME"]) == ("debian", "bookworm"), release


@check
def every_installed_distribution_imports() -> None:
    modules = importlib.metadata.packages_distributions()
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    assert {"lightgbm", "xgboost-cpu", "scikit-learn", "pandas"} <= installed, installed
    without = installed - {name for names in modules.values() for name in names}
    assert not without, f"no modules in {without}"
    for module in set(modules) - NOT_TOP_LEVEL:
        importlib.import_module(module)


@check
def packages_are_found_without_environment_variables() -> None:
    code = "import lightgbm, numerai_predict"
    subprocess.run([sys.executable, "-I", "-c", code], env={}, cwd="/", check=True)


@check
def processes_share_work_among_the_cores() -> None:
    joblib = importlib.import_module("joblib")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert joblib.cpu_count(only_physical_cores=True) >= 1
    assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]


@check
def there_are_no_other_programs() -> None:
    folders = {*os.environ["PATH"].split(":"), "/bin", "/sbin", "/usr/bin", "/usr/sbin"}
    folders |= {"/usr/local/bin", "/usr/local/sbin"}
    found = {name for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)}
    assert found <= PROGRAMS, found - PROGRAMS
    assert not importlib.util.find_spec("pip"), "pip can be imported"


@check
def every_module_is_compiled_and_never_checked_again() -> None:
    modules = [path for path, mode in files() if path.suffix == ".py" and stat.S_ISREG(mode)]
    assert len(modules) > 5000, f"only {len(modules)} modules"
    for module in modules:
        pyc = Path(importlib.util.cache_from_source(str(module)))
        assert pyc.exists(), f"{module} is not compiled"
        # PEP 552: 1 is "by hash, unchecked".
        header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
        header += importlib.util.source_hash(module.read_bytes())
        with open(pyc, "rb") as file:
            assert file.read(16) == header, f"{pyc} is not an unchecked .pyc of {module}"


@check
def scanners_find_every_debian_package() -> None:
    inputs = json.loads(Path("image.json").read_text())["inputs"]
    pins = {**inputs["os"], **inputs["cpython311"]}
    status = Path("/var/lib/dpkg/status.d")
    found = {file.name for file in status.iterdir() if file.suffix != ".md5sums"}
    assert found == set(pins), found ^ set(pins)
    for name, pin in pins.items():
        fields = email.message_from_string((status / name).read_text())
        assert f"{fields['Package']} {fields['Version']}" == f"{name} {pin.split()[0]}", name


@check
def nobody_becomes_another_user_and_only_tmp_is_for_all_to_write() -> None:
    for path, mode in files():
        assert not mode & (stat.S_ISUID | stat.S_ISGID), f"{path} has mode {mode:o}"
        assert not mode & stat.S_IWOTH or stat.S_ISLNK(mode), f"{path} has mode {mode:o}"


@check
def no_link_leads_nowhere() -> None:
    for path, mode in files():
        assert not stat.S_ISLNK(mode) or path.exists(), f"{path} -> {os.readlink(path)}"


def files(folder: str = "/") -> Iterator[tuple[Path, int]]:
    """What the image holds, with the modes."""
    for entry in os.scandir(folder):
        if entry.path not in NOT_OF_THE_IMAGE:
            yield Path(entry.path), entry.stat(follow_symlinks=False).st_mode
            if entry.is_dir(follow_symlinks=False):
                yield from files(entry.path)


def ldconfig(*args: str) -> str:
    argv = ("/usr/sbin/ldconfig", *args)
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def main() -> None:
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
