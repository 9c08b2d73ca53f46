"""Runs an image on the container engine that this machine has.

Docker and Podman load the image; bubblewrap needs neither a daemon nor privileges: the layers are
unpacked once into the user's cache.
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

# Unpacked images to keep for bubblewrap, the youngest first.
KEPT = 3

# How Docker and Podman exit when it was they who failed, and not the command in the container.
NOT_STARTED = (125, 126, 127)

# Architectures by their names in images, as the kernel calls them, and where it lists emulators.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
EMULATORS = Path("/proc/sys/fs/binfmt_misc")

Command = List[str]


class Image:
    def __init__(self, archive: Path) -> None:
        self.archive = archive
        with tarfile.open(archive) as tar:
            manifest = self._read(tar, "manifest.json")[0]
            self.layers: Sequence[str] = manifest["Layers"]
            self.id = Path(manifest["Config"]).name
            self.reference: str = manifest["RepoTags"][0]
            document = self._read(tar, manifest["Config"])
        self.config: Dict[str, Any] = document["config"]
        self.architecture: str = document["architecture"]

    @property
    def is_foreign(self) -> bool:
        """Whether this machine's processor cannot run it by itself."""
        return MACHINES.get(self.architecture) != platform.machine()

    @staticmethod
    def _read(tar: tarfile.TarFile, name: str) -> Any:
        member = tar.extractfile(name)
        assert member is not None, f"{name} is a file"
        return json.load(member)

    def open_layers(self) -> Iterator[tarfile.TarFile]:
        """Each layer as a stream, the lowest first."""
        with tarfile.open(self.archive) as tar:
            for layer in self.layers:
                # tarfile's own "r|gz" stops after the first of a layer's gzip members.
                stream = gzip.GzipFile(fileobj=tar.extractfile(layer))
                with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20) as files:
                    yield files

    def unpack(self, root: Path) -> None:
        for files in self.open_layers():
            for member in files:
                # A later layer may replace a file; folders stay writable to unpack into.
                if not member.isdir() and os.path.lexists(root / member.name):
                    os.unlink(root / member.name)
                files.extract(member, root, set_attrs=not member.isdir())


@dataclass(frozen=True)
class Run:
    """What to run: `folder` is the container's working directory, at the same path as here."""

    image: Image
    entrypoint: Optional[str]
    args: Sequence[str]
    folder: Path
    bubblewrap: Path

    def options(self) -> Command:
        """The `run` command of Docker and Podman, after the program's name and before `args`."""
        return [
            *("run", "--rm", "--interactive"),
            *(["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []),
            *(f"--volume={self.folder}:{self.folder}", f"--workdir={self.folder}"),
            *([f"--platform=linux/{self.image.architecture}"] if self.image.is_foreign else []),
            *([f"--entrypoint={self.entrypoint}"] if self.entrypoint else []),
        ]


def docker(run: Run) -> Optional[Command]:
    info = _output("docker", "info", "--format", "{{.ServerVersion}} {{.SecurityOptions}}")
    if not info:
        return None
    say(f"running {run.image.reference} on Docker {info.split()[0]}")
    image = f"sha256:{run.image.id}"
    _load("docker", run.image, image)
    # A daemon that runs as root would leave root's files in the user's folder; a rootless one maps
    # root to the user already.
    user = [] if os.getuid() == 0 or "rootless" in info else [f"--user={os.getuid()}:{os.getgid()}"]
    return ["docker", *run.options(), *user, image, *run.args]


def podman(run: Run) -> Optional[Command]:
    version = _output("podman", "info", "--format", "{{.Version.Version}}")
    if not version:
        return None
    say(f"running {run.image.reference} on Podman {version}")
    _load("podman", run.image, run.image.id)
    # Podman would raise these limits, for which it lacks the right where it is nested in a container.
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = [f"--ulimit=nofile={files}:{files}", "--ulimit=nproc=32768:32768"]
    return ["podman", *run.options(), *limits, run.image.id, *run.args]


def bubblewrap(run: Run) -> Optional[Command]:
    if not _works(run.bubblewrap):
        return None
    if run.image.is_foreign and not is_emulated(run.image.architecture):
        say(
            f"this machine cannot run linux/{run.image.architecture}: install qemu-user-static, which "
            "registers an emulator with the kernel"
        )
        return None
    say(f"running {run.image.reference} on bubblewrap")
    root = _unpacked(run.image)
    env = dict(variable.split("=", 1) for variable in run.image.config.get("Env", ()))
    # What the container shows of this machine: the folder, and how to find other machines.
    network = [file for file in (Path("/etc/resolv.conf"), Path("/etc/hosts")) if file.exists()]
    return [
        str(run.bubblewrap),
        *("--unshare-user", "--uid", "0", "--gid", "0", "--unshare-pid", "--unshare-ipc"),
        *("--unshare-uts", "--hostname", "container", "--die-with-parent", "--clearenv"),
        *_words("--setenv", {"HOME": "/root", **env}),
        *mounts(root, Path("/"), [run.folder, *network]),
        *("--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"),
        # After /tmp, so that a folder below it is seen too.
        *("--bind", str(run.folder), str(run.folder)),
        *_words("--ro-bind", {str(file): str(file) for file in network}),
        *("--chdir", str(run.folder), "--"),
        *([run.entrypoint] if run.entrypoint else run.image.config["Entrypoint"]),
        *run.args,
    ]


ENGINES: Dict[str, Callable[[Run], Optional[Command]]] = {
    "docker": docker,
    "podman": podman,
    "bubblewrap": bubblewrap,
}


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _load(engine: str, image: Image, name: str) -> None:
    if not _succeeds(engine, "image", "inspect", name):
        argv = (engine, "load", "--quiet", "--input", str(image.archive))
        subprocess.run(argv, check=True, stdout=sys.stderr)


def _words(option: str, values: Dict[str, str]) -> Iterator[str]:
    for name, value in values.items():
        yield from (option, name, value)


def _succeeds(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True).returncode == 0
    except OSError:
        return False


def _output(*argv: str) -> str:
    """What a command prints; nothing if it is missing or fails."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _works(bubblewrap: Path) -> bool:
    """Whether this kernel lets it make a container."""
    return _succeeds(
        *(
            str(bubblewrap),
            "--unshare-user",
            "--unshare-pid",
            "--ro-bind",
            "/",
            "/",
            "--proc",
            "/proc",
            "true",
        )
    )


def is_emulated(architecture: str) -> bool:
    """Whether the kernel hands such programs to an emulator, wherever their files lie."""
    handler = EMULATORS / f"qemu-{MACHINES.get(architecture, architecture)}"
    # F: opened when it was registered, so that a container need not hold it.
    return (
        handler.exists()
        and re.search("(?m)^enabled$(.|\n)*^flags: .*F", handler.read_text()) is not None
    )


def _unpacked(image: Image) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "oci-images")
    root = cache / image.id
    if not root.exists():
        say("unpacking the image (once)")
        cache.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=cache, prefix=".unpacking-"))
        image.unpack(work)
        try:
            work.rename(root)
        except OSError:  # another run was first
            shutil.rmtree(work, ignore_errors=True)
        for old in sorted(cache.glob("[0-9a-f]*"), key=lambda p: p.stat().st_mtime)[:-KEPT]:
            if old != root and _lock(old, fcntl.LOCK_EX):
                shutil.rmtree(old, ignore_errors=True)
    os.utime(root)
    _lock(root, fcntl.LOCK_SH)
    return root


def _lock(folder: Path, kind: int) -> bool:
    """Locks a folder as long as this process lives, so that no other removes what a container uses."""
    try:
        fcntl.flock(os.open(folder, os.O_RDONLY), kind | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def mounts(root: Path, folder: Path, shared: Sequence[Path]) -> Iterator[str]:
    """Shows `folder` of the image read-only, but for the folders above what is shared: those are made
    anew, because nothing can be mounted where a read-only folder has no place for it."""
    for entry in sorted((root / folder.relative_to("/")).iterdir()):
        path = folder / entry.name
        if entry.is_symlink():
            yield from ("--symlink", os.readlink(entry), str(path))
        elif path in shared or str(path) in ("/dev", "/proc", "/tmp"):
            continue
        elif any(path in target.parents for target in shared):
            yield from ("--dir", str(path))
            yield from mounts(root, path, shared)
        else:
            yield from ("--ro-bind", str(entry), str(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", action="append", choices=[*ENGINES], required=True)
    parser.add_argument("--entrypoint", help="what to start instead of the image's entry point")
    parser.add_argument("--bubblewrap", type=Path, required=True, help="its program")
    parser.add_argument("archive", type=Path)
    parser.add_argument("args", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    run = Run(Image(args.archive), args.entrypoint, args.args, Path.cwd(), args.bubblewrap)
    # The container has the terminal: it is the one to interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in args.engine:
        command = ENGINES[name](run)
        if command is None:
            continue
        code = subprocess.call(command, preexec_fn=_heed_interrupts)
        if code not in NOT_STARTED:
            raise SystemExit(code if code >= 0 else 128 - code)
        say(f"{name} could not start a container")
    say(
        f"No container engine works here; tried {', '.join(args.engine)}. Install Docker or Podman and "
        "start it, or allow unprivileged user namespaces for bubblewrap."
    )
    raise SystemExit(NOT_STARTED[0])


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
