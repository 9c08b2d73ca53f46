"""A model has no privileges, and gets none."""

import platform

import pytest
from hostile.parts import system_calls


def shows_its_status(live_features):
    import os

    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    names = ("NoNewPrivs", "Seccomp", "CapEff", "CapPrm", "CapInh", "CapAmb")
    status = {name: int(fields[name], 16) for name in names}
    raise ValueError(f"{list(status.values())}, uid {os.getuid()} {os.geteuid()}.")


def test_its_status(attack, place):
    done = attack(shows_its_status, code=1)
    assert "ValueError: [1, 2, 0, 0, 0, 0], uid" in done.log
    if place.name.startswith("docker"):
        assert "uid 0" not in done.log


def tries(live_features):
    import ctypes
    import os

    call = system_calls()
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    everything = (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)
    ways = {
        "setresuid": lambda: os.setresuid(12, 12, 12),
        "setgid": lambda: os.setgid(12),
        "setgroups": lambda: os.setgroups([0]),
        "chroot": lambda: os.chroot("/tmp"),
        "capset": lambda: call(126, header, everything),
        "unshare": lambda: call(272, 0x10000000),
        "clone": lambda: call(56, 0x10000000 | 17, 0, 0, 0, 0),
        "clone3": lambda: call(435, bytes(88), 88),
        "mount": lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, 0),
        "setns": lambda: call(308, 0, 0),
        "traceme": lambda: call(101, 0, 0, 0, 0),
        "bpf": lambda: call(321, 0, bytes(128), 128),
        "keyctl": lambda: call(250, 0, -3, 0),
        "userfaultfd": lambda: call(323, 0),
        "perf": lambda: call(298, bytes(128), 0, -1, -1, 0),
        "init_module": lambda: call(175, 0, 0, b""),
        "reboot": lambda: call(169, 0, 0, 0),
        "memfd": lambda: call(319, b"memory", 0),
        "shared memory": lambda: call(29, 0, 4096, 0o1600),
        "pidfd_getfd": lambda: call(438, os.pidfd_open(os.getppid()), 0, 0),
    }
    done = []
    for name, way in ways.items():
        try:
            if (result := way()) not in ("EPERM", "EACCES", "ENOSYS", "EFAULT"):
                done.append((name, result))
        except PermissionError:
            pass
    raise ValueError(f"did {done}")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls by their numbers")
def test_what_it_tries_is_refused(attack):
    assert "ValueError: did []" in attack(tries, code=1).log
