"""The system calls that a model's process may not make, as a seccomp filter of libseccomp.

Everything else is allowed: the filter takes away what reaches other machines, other processes or
little-tested parts of the kernel. libseccomp also refuses other ABIs of the processor (i386, x32).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
from collections.abc import Iterable

_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_REFUSE = _ERRNO | errno.EPERM
_IGNORE = _ERRNO  # it succeeds, and nothing happens
_UNKNOWN = _ERRNO | errno.ENOSYS  # callers fall back to what there was before

_ACT_BADARCH, _OPTIMIZE = 2, 8  # enum scmp_filter_attr
_NOT_EQUAL, _MASKED_EQUAL = 1, 7  # enum scmp_compare
_INT = 0xFFFFFFFF  # the kernel reads 32 bits of an int, the filter compares 64

# Whole system calls, by what they would reach.
_PROCESSES = """ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp
    pidfd_getfd pidfd_send_signal tkill migrate_pages move_pages"""
# A process that leaves its group would outlive the group's end.
_GROUPS = "setsid setpgid"
_NAMESPACES = """unshare setns chroot pivot_root mount umount2 move_mount open_tree fsopen fsconfig
    fsmount fspick mount_setattr open_by_handle_at"""
_KERNEL = """add_key keyctl request_key bpf perf_event_open userfaultfd kexec_load kexec_file_load
    init_module finit_module delete_module acct quotactl swapon swapoff reboot syslog vhangup
    settimeofday clock_settime adjtimex clock_adjtime sethostname setdomainname iopl ioperm"""
# Memory that no process is seen to hold, or that would outlive them all.
_MEMORY = "memfd_create memfd_secret shmget semget msgget mq_open"
# Landlock does not cover a file's attributes; programs set those of their own files and go on.
_ATTRIBUTES = """chmod fchmod fchmodat fchmodat2 utime utimes utimensat futimesat
    setxattr lsetxattr fsetxattr setxattrat"""
# clone3 hides its flags from filters; C libraries then use clone.
_NEWER = "io_uring_setup io_uring_enter io_uring_register clone3"

_CLONE_NEW = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_F_SETOWN, _F_SETOWN_EX = fcntl.F_SETOWN, 15
_IOPRIO_WHO_USER = 3
# FIOSETOWN and SIOCSPGRP let the kernel signal any process; TIOCSTI and TIOCLINUX type on terminals.
_IOCTLS = (0x8901, 0x8902, 0x5412, 0x541C)


class _Comparison(ctypes.Structure):  # struct scmp_arg_cmp
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


def _is(arg: int, value: int, mask: int = _INT) -> _Comparison:
    return _Comparison(arg, _MASKED_EQUAL, mask, value & mask)


def _is_not(arg: int, value: int) -> _Comparison:
    return _Comparison(arg, _NOT_EQUAL, value, 0)


class _Filter:
    def __init__(self) -> None:
        self.library = ctypes.CDLL("libseccomp.so.2")
        self.library.seccomp_init.restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.library.seccomp_init(ctypes.c_uint32(_ALLOW)))
        self._attribute(_ACT_BADARCH, _KILL_PROCESS)
        self._attribute(_OPTIMIZE, 2)

    def _attribute(self, name: int, value: int) -> None:
        self.library.seccomp_attr_set(self.context, name, ctypes.c_uint32(value))

    def rule(self, action: int, names: str, *comparisons: _Comparison) -> None:
        """Give `action` to these system calls where all comparisons hold."""
        array = (_Comparison * len(comparisons))(*comparisons)
        for name in names.split():
            number = self.library.seccomp_syscall_resolve_name(name.encode())
            if number < 0:  # not on this architecture
                continue
            result = self.library.seccomp_rule_add_array(
                self.context, ctypes.c_uint32(action), number, len(comparisons), array
            )
            if result:
                raise OSError(-result, f"no rule for {name}: {os.strerror(-result)}")

    def load(self) -> None:
        result = self.library.seccomp_load(self.context)
        self.library.seccomp_release(self.context)
        if result:
            raise OSError(-result, os.strerror(-result))


def install(launcher: int, threads: Iterable[int]) -> None:
    """Load the filter for this process and all that it will start, for good; no new privileges.

    Args:
        launcher: the process that nothing in here may signal.
        threads: its threads; a signal to one is a signal to the process.

    Raises:
        OSError: libseccomp is missing, or the kernel refuses.
    """
    filter = _Filter()
    filter.rule(_REFUSE, "socket socketpair", _is_not(0, socket.AF_UNIX))
    filter.rule(_REFUSE, f"{_PROCESSES} {_GROUPS} {_NAMESPACES} {_KERNEL}")
    filter.rule(_UNKNOWN, f"{_NEWER} {_MEMORY}")
    filter.rule(_IGNORE, _ATTRIBUTES)
    for flag in _CLONE_NEW:
        filter.rule(_REFUSE, "clone", _is(0, flag, flag))
    for command in (_F_SETOWN, _F_SETOWN_EX):
        filter.rule(_REFUSE, "fcntl", _is(1, command))
    for command in _IOCTLS:
        filter.rule(_REFUSE, "ioctl", _is(1, command))
    # Of whom, where that is an argument: 0 is the caller.
    filter.rule(_REFUSE, "prlimit64 sched_setscheduler sched_setparam sched_setattr", _is_not(0, 0))
    filter.rule(_REFUSE, "setpriority ioprio_set", _is_not(1, 0))
    filter.rule(_REFUSE, "setpriority", _is(0, os.PRIO_USER))
    filter.rule(_REFUSE, "ioprio_set", _is(0, _IOPRIO_WHO_USER))
    for thread in threads:
        filter.rule(_REFUSE, "sched_setaffinity", _is(0, thread))
    # Whoever signals the launcher means harm: a refusal could be ignored. Signal 0 only asks.
    filter.rule(_KILL_PROCESS, "rt_tgsigqueueinfo tgkill", _is(0, launcher))
    for thread in threads:
        filter.rule(_KILL_PROCESS, "rt_sigqueueinfo", _is(0, thread))
    for target in {*threads, -1, -os.getpgid(launcher)}:
        filter.rule(_KILL_PROCESS, "kill", _is(0, target), _is_not(1, 0))
    filter.load()
