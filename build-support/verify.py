"""Rebuilds an image from the commit that it names, and compares the digests.

Exit codes: 0 verified; 1 the image differs from its source, or from what it says of itself; 2 it
cannot be verified: wrong usage, no such commit here, no archive that keeps digests, a failed build.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import reproduce
from image_diff import differences
from oci_archive import Archive, NotAnImage, read
from reproduce import say

COMMIT_LABEL = "org.opencontainers.image.revision"
TARGET_LABEL = "oci.target"
# What an image was made with that no commit pins.
UNPINNED = {"oci.interpreter": "its builder's interpreter", "oci.cpu_index": "packages of an index"}
# A label is a stranger's word: it is no option of git's or Pants'.
COMMIT = re.compile(r"[0-9a-f]{40}")
TARGET = re.compile(r"(?!-)[\w./-]*:[\w.+-]+")


class CannotVerify(Exception):
    """Why, and what to do next."""


class Differs(Exception):
    """What is wrong, known without a rebuild."""


@dataclass(frozen=True)
class Source:
    commit: str
    target: str
    stamped: bool


def verify(args: argparse.Namespace, folder: Path) -> str:
    """The verdict on an image that is what its source says.

    Raises Differs, CannotVerify, NotAnImage.
    """
    archive = read(local_archive(args.image, folder, args.plain_http))
    say(f"{args.image}: {archive.digest} {' '.join(archive.platforms)}")
    show(archive.problems)
    if archive.problems and not args.rebuild_anyway:
        raise Differs("the archive is not what it says of itself; it was not rebuilt")
    source = source_of(archive, args.ref, args.target)
    warn_of_unpinned(archive)
    platforms = chosen_platforms(archive, args.platform)
    rebuilt = read(rebuild(source, platforms, args.cache, folder))
    compared = Archive(archive.path, archive.digest)
    compared.platforms = {platform: archive.platforms[platform] for platform in platforms}
    lines = [*rebuilt.problems, *differences(compared, rebuilt, ("the image", "the rebuild"))]
    left = [platform for platform in archive.platforms if platform not in platforms]
    if not lines and not left and archive.digest != rebuilt.digest:
        lines = [f"index: {archive.digest} / {rebuilt.digest}, of equal manifests"]
    show(lines)
    if lines or archive.problems:
        raise Differs(f"it is not {source.target} of commit {source.commit}")
    for platform in platforms:
        print(f"{platform}: {rebuilt.platforms[platform].digest}")
    not_rebuilt = f"; not rebuilt: {', '.join(left)}" if left else ""
    return f"{args.image} is {source.target} of commit {source.commit}{not_rebuilt}"


def local_archive(image: str, folder: Path, plain_http: bool) -> Path:
    """The archive of that name, or one fetched from a registry."""
    path = Path(image)
    if path.is_dir() and (path / "image.tar").exists():
        return path / "image.tar"
    if path.exists():
        return path
    reference = image.removeprefix("docker://")
    if not reference[:1].isalnum() or image.endswith(".tar"):
        raise CannotVerify(f"There is no file {image}, and no registry has such a name.")
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        raise CannotVerify(
            f"There is no file {image}; to fetch it from a registry takes skopeo: apt-get install skopeo."
        )
    say(f"fetching {reference}")
    copied = folder / "fetched.tar"
    # Signatures are cosign's concern; what is fetched is proved by building it.
    argv = (skopeo, f"--tmpdir={folder}", "--insecure-policy", "copy", "--all", "--retry-times=3")
    kept = ("--preserve-digests", f"docker://{reference}", f"oci-archive:{copied}")
    plain = ("--src-tls-verify=false",) if plain_http else ()
    if subprocess.run((*argv, *plain, *kept), stdout=sys.stderr).returncode:
        raise CannotVerify(
            f"{reference} could not be fetched, see above: `docker login` gives access; a registry on "
            "this machine without TLS takes PLAIN_HTTP=1."
        )
    return copied


def source_of(archive: Archive, ref: str | None, target: str | None) -> Source:
    """What the image's labels name; what they leave out, the user has to say."""
    if not archive.platforms:
        raise CannotVerify("The archive holds no image.")
    stamps = {
        (image.labels.get(COMMIT_LABEL), image.labels.get(TARGET_LABEL))
        for image in archive.platforms.values()
    }
    if len(stamps) > 1:
        raise Differs(f"its platforms name different sources: {sorted(map(str, stamps))}")
    [(commit_label, target_label)] = stamps
    if commit_label is not None and not COMMIT.fullmatch(commit_label):
        raise CannotVerify(f"The image's label {COMMIT_LABEL} is no commit: {commit_label!r}")
    commit = commit_of(ref or commit_label or missing("a commit", "REF=…"))
    if commit_label not in (None, commit):
        raise Differs(f"it is an image of commit {commit_label}, not of {commit}")
    target = target or target_label or missing("a target", "TARGET=images:py311")
    if not TARGET.fullmatch(target):
        raise CannotVerify(f"{target!r} is not the address of an image, such as images:py311.")
    if target_label not in (None, target):
        raise Differs(f"it is an image of {target_label}, not of {target}")
    return Source(commit, target, commit_label is not None)


def missing(what: str, variable: str) -> str:
    raise CannotVerify(f"The image names no {what[2:]}; if you know it: make verify … {variable}")


def commit_of(ref: str) -> str:
    argv = ("git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    found = subprocess.run(argv, capture_output=True, text=True)
    if found.returncode:
        raise CannotVerify(f"Commit {ref} is not in this repository; `git fetch --all` may get it.")
    # Older versions of git print the option as well.
    return found.stdout.split()[-1]


def warn_of_unpinned(archive: Archive) -> None:
    for platform, image in archive.platforms.items():
        for label, what in UNPINNED.items():
            if label in image.labels:
                say(f"{platform} was made with {what}, {image.labels[label]!r}, which no commit pins:"
                    " it differs wherever that does.")  # fmt: skip


def chosen_platforms(archive: Archive, asked: str | None) -> list[str]:
    if asked is None:
        return [*archive.platforms]
    if asked == "host":
        machine = subprocess.run(("uname", "-m"), capture_output=True, text=True).stdout.strip()
        asked = f"linux/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"
    if asked not in archive.platforms:
        raise CannotVerify(
            f"The image is not for {asked}, only for {', '.join(archive.platforms)}."
        )
    return [asked]


def rebuild(source: Source, platforms: list[str], cache: bool, folder: Path) -> Path:
    """Builds the image in a clean checkout; returns its archive."""
    argv = ("git", "log", "-1", "--format=%h of %cs, %s", source.commit)
    described = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    caches = "this user's cache" if cache else "empty caches, which takes a while"
    say(f"rebuilding {source.target} for {', '.join(platforms)} from {described}; with {caches}")
    archived = subprocess.run(("git", "archive", source.commit), check=True, capture_output=True)
    checkout = folder / "checkout"
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as tar:
        tar.extractall(checkout, filter="data")
    options = [f"--oci-git-ref={source.commit}"] if source.stamped else []
    if len(platforms) == 1:
        options.append(f"--oci-platform={platforms[0]}")
    home = None if cache else folder / "home"
    start = time.monotonic()
    try:
        built, _ = reproduce.build(checkout, home, source.target, *options)
    except subprocess.CalledProcessError as error:
        raise CannotVerify(
            f"{source.target} of {source.commit} cannot be built here, see above: {error}"
        ) from None
    say(f"rebuilt in {time.monotonic() - start:.0f} s")
    return built / "image.tar"


def show(lines: Iterable[str]) -> None:
    """Names in an image are a stranger's: no control characters reach the terminal."""
    for line in lines:
        print("".join(each if each.isprintable() else repr(each)[1:-1] for each in line))


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("verify", description=__doc__, formatter_class=raw)
    parser.add_argument("image", help="an image.tar, or the image's name in a registry")
    parser.add_argument("--ref", help="the commit, if the image names none")
    parser.add_argument("--target", help="the target, if the image names none: images:py311")
    parser.add_argument("--platform", help="rebuild this one alone: linux/arm64, or host")
    parser.add_argument(
        "--cache",
        action="store_true",
        help="take layers from this user's cache: faster, less proof",
    )
    parser.add_argument(
        "--plain-http", action="store_true", help="the registry has no TLS, or no known certificate"
    )
    parser.add_argument(
        "--rebuild-anyway",
        action="store_true",
        help="where the archive contradicts itself, still rebuild, to name the files",
    )
    return parser


def main() -> None:
    args = parser().parse_args()
    # Large images: TMPDIR says where.
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        try:
            verdict, code = f"VERIFIED: {verify(args, Path(folder))}", 0
        except Differs as error:
            verdict, code = f"DIFFERS: {args.image}: {error}", 1
        except (CannotVerify, NotAnImage) as error:
            verdict, code = f"NOT VERIFIED: {error}", 2
    show([verdict])
    raise SystemExit(code)


if __name__ == "__main__":
    main()
