"""Builds an image twice, as two strangers would, and compares the digests.

Each build has its own copy of this repository (what git knows of it, uncommitted changes included), and
its own home, umask, time zone, language, user name, set-up and empty caches.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from image_diff import differences
from oci_archive import read

Stranger = dict[str, object]

STRANGERS = (
    {"umask": 0o022, "TZ": "UTC", "LANG": "C.UTF-8", "USER": "ada"},
    {"umask": 0o077, "TZ": "Asia/Kathmandu", "LANG": "C", "USER": "grace"},
)


def build(
    checkout: Path,
    home: Path | None,
    image: str,
    *options: str,
    env: dict[str, str] | None = None,
    umask: int = -1,
) -> tuple[Path, str]:
    """Builds `image` in a checkout, with empty caches in the folder `home`, or with the user's own.

    Nothing that the user configured for Pants counts, a remote cache for instance: `options` and, as
    environment variables, `env` say all.

    Returns:
        The folder of its `image.tar` and `image.json`, and what Pants said.

    Raises:
        subprocess.CalledProcessError: Pants could not build it.
    """
    own = {name: value for name, value in os.environ.items() if not _configures_pants(name)}
    if home is not None:
        home.mkdir(parents=True)
        own |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    # Where to find interpreters is a fact of the machine, not of the user.
    own["PYENV_ROOT"] = os.environ.get("PYENV_ROOT") or str(Path.home() / ".pyenv")
    argv = ("./pants", "--no-pantsd", "--no-pantsrc", *options, "package", image)
    # fmt: off
    with subprocess.Popen(
        argv, cwd=checkout, umask=umask, env={**own, **(env or {})},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            say(line.rstrip("\n"))
            said.append(line)
    # fmt: on
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv)
    return checkout / "dist" / image.replace(":", "/"), "".join(said)


def _configures_pants(variable: str) -> bool:
    return variable.startswith("PANTS_") and variable != "PANTS_OCI_CPU_INDEX"


def copy_of(repository: Path, copy: Path) -> Path:
    """What git knows of a repository, uncommitted changes included."""
    argv = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(argv, cwd=repository, check=True, capture_output=True, text=True).stdout
    for name in names.rstrip("\0").split("\0"):
        if (repository / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repository / name, copy / name, follow_symlinks=False)
    (copy / "pants").chmod(0o755)
    return copy


def build_as(
    stranger: Stranger, repository: Path, folder: Path, image: str, **settings: str
) -> tuple[Path, str]:
    """Builds a stranger's copy of a repository; `settings` are variables for Pants. Returns as `build`."""
    copy = copy_of(repository, folder / f"checkout-of-{stranger['USER']}")
    umask = stranger["umask"]
    assert isinstance(umask, int)
    env = {name: str(value) for name, value in stranger.items() if name != "umask"}
    say(f"building {image} as {env['USER']}: {env}, umask {umask:03o}")
    env |= {"LC_ALL": env["LANG"], "LOGNAME": env["USER"], **settings}
    try:
        return build(copy, folder / "home", image, "--oci-platform=host", env=env, umask=umask)
    except subprocess.CalledProcessError:
        sys.exit(f"{env['USER']} could not build {image}")


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
            built, _ = build_as(stranger, Path.cwd(), home, args.image)
            builds.append(read(built / "image.tar"))
        for image in builds:
            for platform, found in image.platforms.items():
                print(f"{platform}: manifest {found.digest}")
        one, other = builds
        lines = [*one.problems, *other.problems, *differences(one, other)]
    print("\n".join(lines) or f"{args.image}: reproduced")
    raise SystemExit(bool(lines))


if __name__ == "__main__":
    main()
