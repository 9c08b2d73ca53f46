"""A Slurm cluster of several nodes on one machine, with a munged of its own.

Wants root. Alone it keeps a cluster up until its standard input ends, and says what SLURM_CONF is to be:

    python tests/slurm_bed.py 2
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
# Nodes lose nothing by a busy machine here: who wants one dead says so.
CONFIG = """
ClusterName=fleet
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmdTimeout=300
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
PartitionName=models Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
CONTROL_GROUPS = Path("/sys/fs/cgroup")
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=10000\n"
)


class Cluster:
    """Args: folder: for all that it keeps."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.nodes = [f"fleet-{number}" for number in range(count)]
        self.env = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        host = socket.gethostname().partition(".")[0]
        controller, *ports = _free_ports(1 + count)
        text = CONFIG.format(folder=folder, host=host, controller=controller)
        for name, port in zip(self.nodes, ports, strict=True):
            text += NODE.format(name=name, host=host, port=port)
        (folder / "slurm.conf").write_text(text)
        # The second version wants systemd. Neither is used.
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (folder / "state").mkdir()

    def start(self) -> None:
        munge = self.folder / "munge"
        munge.mkdir()
        key = munge / "key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        files = {"key": key, "socket": munge / "socket", "pid": munge / "pid", "log": munge / "log"}
        flags = [
            *(f"--key-file={files['key']}", f"--socket={files['socket']}"),
            *(f"--pid-file={files['pid']}", f"--log-file={files['log']}"),
            f"--seed-file={munge}/seed",
        ]
        self._run("munged", "--foreground", "--force", *flags)
        _until((munge / "socket").exists, "munged makes no socket")
        self._run("slurmctld", "-D")
        for name in self.nodes:
            self._run("slurmd", "-D", "-N", name)
        idle = f"{len(self.nodes)}:idle"
        _until(lambda: self._call("sinfo", "-ho%D:%t").strip() == idle, "the nodes do not answer")

    def command(self, *args: object) -> str:
        """What one of Slurm's commands prints."""
        argv = tuple(map(str, args))
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def die(self, node: str) -> None:
        """As a machine does: at once, with all that runs on it; and its administrator says so."""
        self._end(self._processes.pop(f"slurmd -D -N {node}"))
        self._kill_tasks(node)
        self.command("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=dead")

    def stop(self) -> None:
        for each in reversed(self._processes.values()):
            self._end(each)
        for node in self.nodes:
            self._kill_tasks(node)

    def _run(self, *argv: str) -> None:
        log = (self.folder / "output").open("ab")
        self._processes[" ".join(argv)] = subprocess.Popen(
            argv, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )

    def _call(self, *argv: str) -> str:
        return subprocess.run(argv, env=self.env, capture_output=True, text=True).stdout

    def _kill_tasks(self, node: str) -> None:
        """With their containers and what is left of these; slurmd lets them live."""
        left: set[Path] = set()
        while processes := self._tasks(node):
            for process in processes:
                left |= _left_by(process)
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)
        for path in left:
            if path.is_relative_to(CONTROL_GROUPS):
                _until(lambda: _is_emptied(path), f"{path} stays")  # noqa: B023
            else:
                # What ended by itself meanwhile has cleared up.
                with suppress(FileNotFoundError):
                    shutil.rmtree(path)

    def _tasks(self, node: str) -> set[int]:
        """Processes that have the node's name in their environment, those that watch over these, and all
        that descend from them."""
        marks = {f"SLURM_CONF={self.env['SLURM_CONF']}", f"SLURMD_NODENAME={node}"}
        parents: dict[int, int] = {}
        found: set[int] = set()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environ = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                after_name = (entry / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            if after_name[0] == "Z":
                continue
            parents[int(entry.name)] = int(after_name[1])
            if marks <= set(environ):
                found |= {int(entry.name), int(after_name[1])}
        # The machine's first process takes in what lost its parent.
        found &= parents.keys() - {1, os.getpid()}
        while more := {child for child, parent in parents.items() if parent in found} - found:
            found |= more
        return found

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()


@contextmanager
def cluster(count: int) -> Iterator[Cluster]:
    with ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Cluster(folder, count)
        cleanup.callback(made.stop)
        made.start()
        yield made


def _left_by(process: int) -> set[Path]:
    """What stays of a container where its runtime is killed: control groups that it has to itself
    (/proc/PID/cgroup, cgroups(7)), and the runtime's state."""
    try:
        lines = Path(f"/proc/{process}/cgroup").read_text().splitlines()
        words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except OSError:
        return set()
    found = {Path(words[words.index("--root") + 1])} if "--root" in words else set()
    for line in lines:
        _, kind, path = line.split(":", 2)
        if "/numerai-fleet-" in path:
            # The second version's has no kind; where there are both, it has this name.
            for name in (kind.removeprefix("name="), "unified"):
                found.add(CONTROL_GROUPS / name / path.lstrip("/"))
    return {path for path in found if path.is_dir()}


def _is_emptied(group: Path) -> bool:
    """Kills what a control group still holds, and removes it once that is nothing. Who lost its parent, or
    is in its last moments, no longer looks like a task; the group keeps it until it is really gone.
    """
    try:
        for process in map(int, (group / "cgroup.procs").read_text().split()):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        # It is empty, for all the files that it shows.
        group.rmdir()
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENODEV)
    return True


def _free_ports(count: int) -> list[int]:
    with ExitStack() as open_sockets:
        found = []
        for _ in range(count):
            each = open_sockets.enter_context(socket.socket())
            each.bind(("127.0.0.1", 0))
            found.append(each.getsockname()[1])
        return found


def _until(is_so: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


def main() -> None:
    with cluster(int(sys.argv[1])) as made:
        print(made.env["SLURM_CONF"], flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
