from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Callable

import pytest
from pants.engine.fs import DigestContents
from pants.engine.internals.scheduler import ExecutionError
from pants.engine.rules import QueryRule
from pants.testutil.rule_runner import RuleRunner

from oci.testutil.debs import make_deb
from oci.util_rules import debian_packages
from oci.util_rules.debian_packages import DebianPackages, DebianPackagesRequest
from oci.util_rules.platform import PLATFORMS

# A suite that no machine's apt is configured for.
SUITE = "tiny-suite"
TINY = make_deb("tiny", {})


@pytest.fixture
def rule_runner() -> RuleRunner:
    runner = RuleRunner(
        rules=[
            *debian_packages.rules(),
            QueryRule(DebianPackages, [DebianPackagesRequest]),
        ],
        # A package that is in the store already would not be downloaded.
        isolated_local_store=True,
    )
    runner.write_files({"tiny.lock": json.dumps({"suite": SUITE, "packages": [*map(entry, "ab")]})})
    return runner


def entry(name: str) -> dict[str, Any]:
    return {
        "name": f"tiny-{name}",
        "version": "1.0+deb12u1",
        "architecture": "all" if name == "a" else "amd64",
        "path": f"pool/{name}.deb",
        "sha256": hashlib.sha256(TINY + name.encode()).hexdigest(),
        "size": len(TINY) + 1,
        "set": name,
    }


def mirror(folder: Path, *names: str, content: bytes = TINY) -> str:
    (folder / "pool").mkdir(parents=True)
    for name in names:
        (folder / f"pool/{name}.deb").write_bytes(content + name.encode())
    return f"file://{folder}"


def packages(
    rule_runner: RuleRunner,
    *sets: str,
    mirrors: str = "",
    security: str = "",
    platform: str = "amd64",
) -> set[str]:
    """Their names, and that all of their files are there."""
    variables = {"DEBIAN_MIRROR": mirrors, "DEBIAN_SECURITY_MIRROR": security}
    rule_runner.set_options([], env=variables)
    request = DebianPackagesRequest("tiny.lock", sets, PLATFORMS[f"linux/{platform}"])
    found = rule_runner.request(DebianPackages, [request])
    contents = rule_runner.request(DigestContents, [found.digest])
    assert {file.path for file in contents} == {*found.files}
    return {package.name for package in found.packages}


def refusal(rule_runner: RuleRunner, *sets: str, mirrors: str = "") -> str:
    with pytest.raises(ExecutionError) as error:
        packages(rule_runner, *sets, mirrors=mirrors)
    return str(error.value)


def test_the_sets_asked_for_are_downloaded(rule_runner: RuleRunner, tmp_path: Path) -> None:
    where = mirror(tmp_path, "a", "b")
    assert packages(rule_runner, "a", mirrors=where) == {"tiny-a"}
    assert packages(rule_runner, "a", "b", mirrors=f"{where}/") == {"tiny-a", "tiny-b"}
    assert packages(rule_runner, mirrors=where) == set()


def test_packages_of_another_architecture_are_not(rule_runner: RuleRunner, tmp_path: Path) -> None:
    where = mirror(tmp_path, "a", "b")
    assert packages(rule_runner, "a", "b", mirrors=where, platform="arm64") == {"tiny-a"}


def test_the_next_mirror_is_tried(rule_runner: RuleRunner, tmp_path: Path) -> None:
    mirrors = [
        mirror(tmp_path / "1", "a"),
        mirror(tmp_path / "2", "b", content=b"another build"),
        mirror(tmp_path / "3", "b"),
    ]
    assert packages(rule_runner, "a", "b", mirrors=" ".join(mirrors)) == {"tiny-a", "tiny-b"}


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes an `apt-get` that is configured for these targets."""
    program = tmp_path / "bin/apt-get"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)

    def configure(*targets: str) -> None:
        program.write_text("#!/bin/sh\ncat << END\n" + "\n".join([*targets, "END\n"]))
        program.chmod(0o755)

    return configure


def test_apt_knows_mirrors(
    rule_runner: RuleRunner, tmp_path: Path, apt: Callable[..., None]
) -> None:
    where = mirror(tmp_path, "a")
    apt("|||file:///flat", "other|Debian|Debian|file:///other", f"{SUITE}|||{where}")
    assert packages(rule_runner, "a") == {"tiny-a"}


def test_an_archive_that_apt_uses_has_other_suites(
    rule_runner: RuleRunner, tmp_path: Path, apt: Callable[..., None]
) -> None:
    where = mirror(tmp_path, "a")
    apt(
        "other|Somebody|Debian|file:///somebody",
        "other-security|Debian|Debian-Security|file:///security",
        f"other|Debian|Debian|{where}",
    )
    assert packages(rule_runner, "a") == {"tiny-a"}


def from_security(rule_runner: RuleRunner) -> None:
    """The lock has one package of the suite, and one of its security channel."""
    entries = [entry("a"), {**entry("b"), "channel": f"{SUITE}-security"}]
    lock = {"suite": SUITE, "packages": entries}
    rule_runner.write_files({"tiny.lock": json.dumps(lock)})


def test_a_channel_has_a_mirror_of_its_own(rule_runner: RuleRunner, tmp_path: Path) -> None:
    from_security(rule_runner)
    main, security = mirror(tmp_path / "1", "a"), mirror(tmp_path / "2", "b")
    found = packages(rule_runner, "a", "b", mirrors=main, security=security)
    assert found == {"tiny-a", "tiny-b"}


def test_apt_knows_mirrors_of_a_channel(
    rule_runner: RuleRunner, tmp_path: Path, apt: Callable[..., None]
) -> None:
    from_security(rule_runner)
    main, security = mirror(tmp_path / "1", "a"), mirror(tmp_path / "2", "b")
    apt(f"other|Debian|Debian|{main}", f"other-security|Debian|Debian-Security|{security}")
    assert packages(rule_runner, "a", "b") == {"tiny-a", "tiny-b"}


def test_a_package_that_no_mirror_of_a_channel_has(
    rule_runner: RuleRunner, tmp_path: Path, apt: Callable[..., None]
) -> None:
    from_security(rule_runner)
    apt()
    says = refusal(rule_runner, "a", "b", mirrors=mirror(tmp_path / "1", "a", "b"))
    assert "No mirror has tiny-b" in says and "set DEBIAN_SECURITY_MIRROR to" in says
    assert f"nothing: this machine has no apt configuration for {SUITE}-security" in says


def test_a_package_that_no_mirror_has(rule_runner: RuleRunner, tmp_path: Path) -> None:
    one, two = mirror(tmp_path / "1", "a"), mirror(tmp_path / "2")
    says = refusal(rule_runner, "a", "b", mirrors=f"{one} {two}")
    assert "No mirror has tiny-b 1.0+deb12u1 as the lock wants it." in says
    assert f"{one}/pool/b.deb: " in says and f"{two}/pool/b.deb: " in says
    assert "DEBIAN_MIRROR" in says and "`make lock`" in says


def test_a_package_that_was_changed(rule_runner: RuleRunner, tmp_path: Path) -> None:
    where = mirror(tmp_path, "a", content=TINY[:-1] + b"?")
    says = refusal(rule_runner, "a", mirrors=where)
    assert "No mirror has tiny-a" in says
    assert f"{where}/pool/a.deb: " in says and entry("a")["sha256"] in says


def test_a_machine_that_knows_no_mirror(rule_runner: RuleRunner, apt: Callable[..., None]) -> None:
    apt()
    says = refusal(rule_runner, "a")
    assert f"nothing: this machine has no apt configuration for {SUITE}" in says
    assert "DEBIAN_MIRROR" in says


def test_a_set_that_the_lock_does_not_have(rule_runner: RuleRunner) -> None:
    assert "tiny.lock has the sets ['a', 'b'], not all of ('a', 'c')" in refusal(
        rule_runner, "a", "c"
    )


def test_a_lock_that_is_not_there(rule_runner: RuleRunner) -> None:
    (Path(rule_runner.build_root) / "tiny.lock").unlink()
    assert "a `lock` of Debian packages" in refusal(rule_runner, "a")
