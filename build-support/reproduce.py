"""Builds an image twice, as two strangers would, and compares the digests.

Each build has its own copy of this repository (what git knows of it, uncommitted changes included), and
its own home, umask, time zone, language, user name, set-up and empty caches.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from image_diff import differences

Stranger = dict[str, object]

# Nothing that was built before is taken, here or from a cache that builds share.
ALONE = ("--no-local-cache", "--no-remote-cache-read", "--no-remote-cache-write")

STRANGERS = (
    {"umask": 0o022, "TZ": "UTC", "LANG": "C.UTF-8", "USER": "ada"},
    {"umask": 0o077, "TZ": "Asia/Kathmandu", "LANG": "C", "USER": "grace"},
)


def check_out(repository: Path, folder: Path, stranger: Stranger) -> Path:
    """Copies what git knows of `repository` to a folder of the stranger's below `folder`."""
    copy = folder / f"checkout-of-{stranger['USER']}"
    argv = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(argv, cwd=repository, check=True, capture_output=True, text=True).stdout
    for name in names.rstrip("\0").split("\0"):
        if (repository / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repository / name, copy / name, follow_symlinks=False)
    (copy / "pants").chmod(0o755)
    return copy


def build(
    checkout: Path, image: str, stranger: Stranger, *options: str, **settings: str
) -> tuple[Path, str]:
    """Builds `image` in a stranger's copy, with a home folder beside that. `options` and, as environment
    variables, `settings` are for Pants.

    Returns:
        The folder of its `image.tar` and `image.json`, and what Pants said.
    """
    umask = stranger["umask"]
    assert isinstance(umask, int)
    env = {name: str(value) for name, value in stranger.items() if name != "umask"}
    say(f"building {image} as {env['USER']}: {env}, umask {umask:03o}")
    home = checkout.parent / "home"
    argv = ("./pants", "--no-pantsd", "--oci-platform=host", *options, "package", image)
    # fmt: off
    with subprocess.Popen(
        argv, cwd=checkout, umask=umask, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={
            **os.environ, **env, **settings, "LC_ALL": env["LANG"], "LOGNAME": env["USER"],
            "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"),
            # Where to find interpreters is a fact of the machine, not of the user.
            "PYENV_ROOT": os.environ.get("PYENV_ROOT") or str(Path.home() / ".pyenv"),
        },
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            say(line.rstrip("\n"))
            lines.append(line)
    # fmt: on
    if process.returncode:
        sys.exit(f"{env['USER']} could not build {image}")
    return checkout / "dist" / image.replace(":", "/"), "".join(lines)


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", nargs="?", default="images:py311", help="default: %(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        builds = []
        for number, stranger in enumerate(STRANGERS):
            home = Path(folder, "x" * number, str(number))
            (home / "home").mkdir(parents=True)
            checkout = check_out(Path.cwd(), home, stranger)
            builds.append(build(checkout, args.image, stranger, *ALONE)[0])
        for build_folder in builds:
            image = json.loads((build_folder / "image.json").read_text())
            for platform, found in image["platforms"].items():
                print(f"{platform}: manifest {found['digest']} config {found['config_digest']}")
        lines = list(differences(*builds))
    print("\n".join(lines) or f"{args.image}: reproduced")
    raise SystemExit(bool(lines))


if __name__ == "__main__":
    main()
