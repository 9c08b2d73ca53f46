"""A model cannot signal the launcher, by any call or any of its threads; nor slow it down."""

import platform
import subprocess

import pytest
from hostile.parts import system_calls

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="system calls are written by their numbers on x86_64"
)

CRASHED = "crashed: the model's process was killed by SIGSYS: it made a forbidden system call"

WAYS = {
    "kill": "os.kill(launcher, 9)",
    "stop": "os.kill(launcher, 19)",
    "everybody": "os.kill(-1, 15)",
    "its group": "os.killpg(os.getpgid(launcher), 9)",
    "a thread as a process": "[os.kill(thread, 9) for thread in reversed(threads)]",
    "tgkill": "[call(234, launcher, thread, 9) for thread in threads]",
    "rt_sigqueueinfo": "[call(129, thread, 9, info) for thread in reversed(threads)]",
    "rt_tgsigqueueinfo": "call(297, launcher, launcher, 9, info)",
    "upper bits": "call(62, launcher | 0xABC << 32, 9)",
    "x32": "call(62 | 0x40000000, launcher, 9)",
}


def does(code):
    def model(live_features):
        import ctypes
        import os

        launcher = os.getppid()
        threads = sorted(map(int, os.listdir(f"/proc/{launcher}/task")))
        info = ctypes.create_string_buffer(128)
        info[8] = b"\xff"  # SI_QUEUE
        scope = {"os": os, "launcher": launcher, "threads": threads, "info": info}
        result = eval(code, {**scope, "call": system_calls()})
        raise ValueError(f"not stopped: {result}")

    return model


@pytest.mark.places("docker-hardened")
@pytest.mark.parametrize("code", WAYS.values(), ids=WAYS)
def test_the_launcher_lives_and_tells(code, attack):
    assert CRASHED in attack(does(code), code=5).log


@pytest.mark.places("outside", "docker")
@pytest.mark.parametrize("way", ["kill", "a thread as a process"])
def test_everywhere(way, attack):
    assert CRASHED in attack(does(WAYS[way]), code=5).log


def slowly(live_features):
    import ctypes
    import fcntl
    import os
    import resource
    import signal
    import socket

    launcher = os.getppid()
    first, second = socket.socketpair()
    low = (ctypes.c_ulong * 2)(0, 0)
    call = system_calls()
    pidfd = os.pidfd_open(launcher)
    ways = {
        "tkill": lambda: call(200, launcher, 9),
        "pidfd": lambda: signal.pidfd_send_signal(pidfd, 9),
        "owner": lambda: fcntl.fcntl(first, fcntl.F_SETOWN, launcher),
        "its group as owner": lambda: fcntl.fcntl(first, fcntl.F_SETOWN, -os.getpgid(launcher)),
        "owner, extended": lambda: fcntl.fcntl(
            first, 15, bytes(4) + launcher.to_bytes(4, "little")
        ),
        "ioctl": lambda: fcntl.ioctl(first, 0x8901, launcher.to_bytes(4, "little")),
        "prlimit": lambda: resource.prlimit(launcher, resource.RLIMIT_CPU, (0, 0)),
        "prlimit, upper bits": lambda: call(302, launcher | 1 << 40, 0, low, 0),
        "priority": lambda: os.setpriority(os.PRIO_PROCESS, launcher, 19),
        "priority of its user": lambda: os.setpriority(os.PRIO_USER, 0, 19),
        "scheduler": lambda: os.sched_setscheduler(launcher, os.SCHED_IDLE, os.sched_param(0)),
        "processors": lambda: os.sched_setaffinity(launcher, {0}),
        "I/O": lambda: call(251, 1, launcher, 3 << 13),
    }
    done = []
    for name, way in ways.items():
        try:
            if way() not in ("EPERM", "EACCES", "ESRCH"):
                done.append(name)
        except PermissionError:
            pass
    raise ValueError(f"did {done}")


def test_other_ways_are_refused(attack):
    assert "ValueError: did []" in attack(slowly, code=1).log


def at_bystanders(pid):
    def model(live_features):
        import os
        import signal

        os.kill(pid, signal.SIGTERM)

    return model


@pytest.mark.places("outside")
def test_no_other_process_either(attack):
    with subprocess.Popen(["sleep", "100"]) as bystander:
        try:
            attack(at_bystanders(bystander.pid), code=1)
            assert bystander.poll() is None
        finally:
            bystander.kill()
