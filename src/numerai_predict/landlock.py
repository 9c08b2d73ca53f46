"""Where a model's process may write: Landlock rules, which need no privileges (landlock(7))."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # flag of landlock_create_ruleset
_PATH_BENEATH = 1

_WRITE_FILE = 1 << 1
# Write, remove and make whatever it is; moving between folders came with version 2, truncating
# with 3.
_CHANGE = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))
_REFER, _TRUNCATE = 1 << 13, 1 << 14

# From version 6 on: no signals and no abstract sockets of processes that are not confined so.
_SCOPES = 1 << 0 | 1 << 1


class _Ruleset(ctypes.Structure):
    _fields_ = [
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    ]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def restrict_writes(folders: Iterable[str], files: Iterable[str]) -> None:
    """Let this process and all that it will start write only beneath these folders and to these
    files, for good. Needs "no new privileges"; what does not exist is left out.

    Raises:
        OSError: the kernel has no Landlock.
    """
    version = _call(_CREATE_RULESET, None, 0, _VERSION)
    handled = _CHANGE | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    ruleset = _Ruleset(handled, 0, _SCOPES)
    known = ctypes.sizeof(ruleset) if version >= 6 else _Ruleset.handled_access_net.offset
    rules = _call(_CREATE_RULESET, ctypes.byref(ruleset), known, 0)
    try:
        for folder in folders:
            _allow(rules, folder, handled)
        for file in files:
            _allow(rules, file, handled & (_WRITE_FILE | _TRUNCATE))
        _call(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rule = _PathBeneath(access, parent)
        _call(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(parent)


def _call(number: int, *arguments: object) -> int:
    result = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
