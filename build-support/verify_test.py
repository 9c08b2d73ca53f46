from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reproduce
import verify
from handmade import Handmade, tar

OS = tar({"etc/os-release": b"bookworm"})
CODE = tar({"predict.py": b"honest" * 100, "same.py": b"1"})
LAYERS = {"os": OS, "code": CODE}
EVIL = tar({"predict.py": b"rogue" * 100, "same.py": b"1"})

# The verdict's exit code, and all that is printed.
Verdict = tuple[int, str]


@pytest.fixture
def commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The commit of a repository that we are in."""
    repository = tmp_path / "repository"
    repository.mkdir()
    monkeypatch.chdir(repository)
    (repository / "source").write_text("committed")
    names = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for argv in (("init", "-q"), ("add", "."), (*names, "commit", "-qm", "One")):
        subprocess.run(("git", *argv), check=True)
    (repository / "source").write_text("not committed")
    return subprocess.check_output(("git", "rev-parse", "HEAD"), text=True).strip()


@pytest.fixture
def verdict(
    tmp_path: Path, commit: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Verdict]:
    """Verifies an image against a source that builds `honest`, as far as a build is seen from here."""

    def run(image: Handmade | Path, honest: Handmade | Exception | None, *flags: str) -> Verdict:
        def build(
            checkout: Path, home: Path | None, target: str, *options: str
        ) -> tuple[Path, str]:
            assert honest, "nothing is to be built"
            if isinstance(honest, Exception):
                raise honest
            assert (checkout / "source").read_text() == "committed"
            print(target, *options, "home" if home else "no home")
            honest.write(checkout / "dist/image.tar")
            return checkout / "dist", "built"

        monkeypatch.setattr(reproduce, "build", build)
        path = image if isinstance(image, Path) else image.write(tmp_path / "image.tar")
        monkeypatch.setattr("sys.argv", ["verify", str(path), *flags])
        with pytest.raises(SystemExit) as stopped:
            verify.main()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, capsys.readouterr().out

    return run


NAMED = ("--ref=HEAD", "--target=images:py311")


def stamped(commit: str, target: str = "images:py311", **config: Any) -> Handmade:
    labels = {verify.COMMIT_LABEL: commit, verify.TARGET_LABEL: target}
    return Handmade(LAYERS, "amd64", "arm64", config={"Labels": labels, **config})


def test_an_image_that_names_its_source_is_rebuilt_from_it(verdict, commit):
    code, said = verdict(stamped(commit), stamped(commit))
    assert code == 0
    assert f"images:py311 --oci-git-ref={commit} home" in said
    assert "VERIFIED" in said.splitlines()[-1]


def test_one_that_does_not_is_rebuilt_from_what_the_user_names(verdict, commit):
    code, said = verdict(Handmade(LAYERS), Handmade(LAYERS), *NAMED, "--cache")
    assert code == 0
    assert said.startswith("images:py311 --oci-platform=linux/amd64 no home")
    assert commit in said.splitlines()[-1]


def test_one_platform_is_enough_when_asked_for(verdict, commit):
    honest = Handmade(LAYERS, "arm64", config={})
    flags = (*NAMED, "--platform=linux/arm64")
    code, said = verdict(Handmade(LAYERS, "amd64", "arm64"), honest, *flags)
    assert code == 0
    assert said.splitlines()[-1].endswith("not rebuilt: linux/amd64")


def flip(image: Handmade, name: str) -> None:
    content = bytearray(image.files[name])
    content[len(content) // 2] ^= 0xFF
    image.files[name] = bytes(content)


def belie_docker(image: Handmade) -> None:
    layers = [image.blobs["os"]]
    described = [{"Config": image.blobs["config"], "RepoTags": [], "Layers": layers}]
    image.files["manifest.json"] = json.dumps(described).encode()


@pytest.mark.parametrize(
    "tamper, said",
    [
        (
            lambda image: flip(image, image.blobs["code"]),
            "linux/amd64: layer code: cannot be unpacked",
        ),
        (
            lambda image: image.files.update({image.blobs["code"]: gzip.compress(EVIL)}),
            "linux/amd64: layer code: its files are not those that the config names",
        ),
        (lambda image: image.files.pop(image.blobs["os"]), "layer os: sha256:"),
        (
            lambda image: flip(image, image.blobs["manifest amd64"]),
            "manifest: the bytes of sha256:",
        ),
        (lambda image: flip(image, image.blobs["config"]), "config: the bytes of sha256:"),
        (
            lambda image: image.files.update({"blobs/sha256/0": b""}),
            "blobs/sha256/0: the image has no",
        ),
        (belie_docker, "`docker load` would take another image"),
    ],
    ids=["byte", "layer", "missing", "manifest", "config", "extra", "docker-load"],
)
def test_an_archive_that_belies_itself_is_caught_without_a_build(verdict, tamper, said):
    image = Handmade(LAYERS)
    tamper(image)
    code, out = verdict(image, None, *NAMED)
    assert code == 1
    assert said in out
    assert "DIFFERS" in out.splitlines()[-1]


def test_its_files_are_named_if_it_is_rebuilt_anyway(verdict):
    image = Handmade(LAYERS)
    image.files[image.blobs["code"]] = gzip.compress(EVIL)
    code, said = verdict(image, Handmade(LAYERS), *NAMED, "--rebuild-anyway")
    assert code == 1
    assert "layer code: predict.py: content" in said


def test_a_layer_that_was_replaced_with_all_its_digests_is_named_with_its_files(verdict):
    code, said = verdict(Handmade({"os": OS, "code": EVIL}), Handmade(LAYERS), *NAMED)
    assert code == 1
    assert "linux/amd64: layer code: predict.py: content" in said
    assert "same.py" not in said
    assert "config" not in said


def test_a_setting_that_was_changed_is_named(verdict, commit):
    code, said = verdict(stamped(commit, Env=["PYTHONPATH=/tmp"]), stamped(commit))
    assert code == 1
    assert "linux/arm64: config Env PYTHONPATH: only in the image, '/tmp'" in said


def test_names_in_an_image_reach_no_terminal_as_they_are(verdict):
    image = Handmade({"os": OS, "\x1b[2Jcode": CODE})
    code, said = verdict(image, Handmade(LAYERS), *NAMED)
    assert code == 1
    assert "\\x1b[2Jcode" in said and "\x1b" not in said


@pytest.mark.parametrize(
    "named, target, flags, code, said",
    [
        ("0" * 40, "images:py311", (), 2, "git fetch"),
        ("--output=/tmp/a", "images:py311", (), 2, "is no commit"),
        (None, "--version", (), 2, "not the address of an image"),
        (None, "images:py311", ("--target=images:py312",), 1, "not of images:py312"),
        (None, "images:py311", ("--platform=linux/s390x",), 2, "only for linux/amd64, linux/arm64"),
        (None, "images:py311", ("--ref=nowhere",), 2, "git fetch"),
    ],
)
def test_what_an_image_names_is_not_trusted(verdict, commit, named, target, flags, code, said):
    found, out = verdict(stamped(named or commit, target), None, *flags)
    assert found == code
    assert said in out.splitlines()[-1]


def test_an_image_that_names_nothing(verdict):
    assert verdict(Handmade(LAYERS), None)[1].splitlines()[-1].endswith("REF=…")


def test_a_file_that_is_no_image(verdict, tmp_path):
    (tmp_path / "text").write_text("no tar")
    assert verdict(tmp_path / "text", None)[0] == 2
    (tmp_path / "saved").write_bytes(tar({"manifest.json": b"[]"}))
    code, said = verdict(tmp_path / "saved", None)
    assert (code, "skopeo copy" in said) == (2, True)
    code, said = verdict(tmp_path / "nothing.tar", None)
    assert (code, "no file" in said) == (2, True)


def test_a_build_that_fails_is_no_verdict(verdict, commit):
    code, said = verdict(stamped(commit), subprocess.CalledProcessError(1, "./pants"))
    assert code == 2
    assert "cannot be built here" in said.splitlines()[-1]
