"""The folder gets what the locks name, laid out as the mirrors that builds are pointed at."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

import mirror

SERVED = {
    "main/pool/a.deb": b"a",
    "security/pool/updates/b.deb": b"b",
    "cpython/2026/cpython-3.99%2B2026.tar.gz": b"c",
}


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Mirrors of all that two locks name."""
    monkeypatch.setattr(mirror, "DEBIAN", tmp_path)
    monkeypatch.setattr(mirror, "CPYTHON", tmp_path / "cpython.json")
    sha256 = [hashlib.sha256(content).hexdigest() for content in SERVED.values()]
    packages = [
        {"path": "pool/a.deb", "sha256": sha256[0]},
        {"path": "pool/updates/b.deb", "sha256": sha256[1], "channel": "tiny-security"},
    ]
    (tmp_path / "tiny.lock").write_text(json.dumps({"suite": "tiny", "packages": packages}))
    url = "unreachable://releases/2026/cpython-3.99%2B2026.tar.gz"
    archives = {"linux/amd64": {"url": url, "sha256": sha256[2]}}
    (tmp_path / "cpython.json").write_text(
        json.dumps({"pythons": {"3.99": {"archives": archives}}})
    )
    for name, content in SERVED.items():
        file = tmp_path / "served" / name.replace("%2B", "+")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    for variable, name in (
        ("DEBIAN_MIRROR", "main"),
        ("DEBIAN_SECURITY_MIRROR", "security"),
        ("CPYTHON_MIRROR", "cpython"),
    ):
        monkeypatch.setenv(variable, f"file://{tmp_path}/served/{name}/ file:///spare")
    monkeypatch.setattr(sys, "argv", ["mirror.py", str(tmp_path / "copy")])
    return tmp_path / "served"


def copied(served: Path) -> dict[str, bytes]:
    copy = served.parent / "copy"
    return {
        str(path.relative_to(copy)): path.read_bytes() for path in copy.rglob("*") if path.is_file()
    }


COPY = {
    "debian/pool/a.deb": b"a",
    "debian-security/pool/updates/b.deb": b"b",
    "cpython/2026/cpython-3.99+2026.tar.gz": b"c",
}


def test_all_that_the_locks_name(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirror.main()
    assert copied(served) == COPY
    assert "3 files fetched, 0 were there" in capsys.readouterr().err


def test_what_is_there_is_kept_and_what_is_damaged_is_not(
    served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.main()
    (served / "main/pool/a.deb").unlink()
    (served.parent / "copy/debian-security/pool/updates/b.deb").write_bytes(b"damaged")
    mirror.main()
    assert copied(served) == COPY
    assert "1 files fetched, 2 were there" in capsys.readouterr().err


def test_what_cannot_be_had_is_named_and_the_rest_is_fetched(served: Path) -> None:
    (served / "main/pool/a.deb").write_bytes(b"another")
    (served / "security/pool/updates/b.deb").unlink()
    with pytest.raises(SystemExit) as refusal:
        mirror.main()
    says = str(refusal.value)
    assert "2 could not be had" in says and "DEBIAN_SECURITY_MIRROR" in says
    assert "main/pool/a.deb: its hash is not the lock's" in says and "updates/b.deb: " in says
    assert copied(served) == {"cpython/2026/cpython-3.99+2026.tar.gz": b"c"}


def test_the_repositorys_own_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DEBIAN_MIRROR", "DEBIAN_SECURITY_MIRROR", "CPYTHON_MIRROR"):
        monkeypatch.setenv(variable, "file:///nowhere")
    places = [pinned.place for pinned in (*mirror.debian_packages(), *mirror.interpreters())]
    roots = {place.partition("/")[0] for place in places}
    assert roots == {"debian", "cpython"}
    assert len(places) > 80
