"""Keeps what the launcher was given in secret out of other processes' sight.

Presigned addresses and form fields are secrets: a process's arguments and environment are readable
in /proc, for every process or for every process of the same user.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl, quote_plus, urlsplit

from numerai_predict.sources import is_url

TITLE = b"numerai_predict"

# What libraries still look up with getenv. Proxies are not among them: they may hold passwords.
HARMLESS = {
    b"HOME",
    b"LANG",
    b"LC_ALL",
    b"PATH",
    b"TMPDIR",
    b"TZ",
    b"SSL_CERT_FILE",
    b"SSL_CERT_DIR",
}

SHORTEST = 6  # characters: what is shorter cannot be told from ordinary text

_PR_SET_DUMPABLE = 4


def resolve(value: str) -> str:
    """A flag's value: itself, the content of a file for `@FILE`, of standard input for `@-`.

    Raises:
        OSError: the file cannot be read.
    """
    if not value.startswith("@"):
        return value
    text = sys.stdin.read() if value == "@-" else Path(value[1:]).read_text()
    return text.strip()


def secrets_of(*values: str | None) -> list[str]:
    """What must not be shown of flags' values, the longer ones first: the query and the login of an
    address; of form fields, all values that are too long to be ordinary words."""
    found = set()
    for value in filter(None, values):
        address, _, query = value.partition("?") if is_url(value) else ("", "", value)
        fields = [text for _, text in parse_qsl(query, keep_blank_values=True)]
        found |= {query, *fields, *(quote_plus(text) for text in fields)}
        found.add(urlsplit(address).netloc.rpartition("@")[0])
    return sorted((text for text in found if len(text) >= SHORTEST), key=len, reverse=True)


def redact(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "[secret]")
    return text


def hide() -> str:
    """Blank this process's arguments and environment in /proc, and close its memory to others.

    Python keeps its own copies in `sys.argv` and `os.environ`; other users and, because the process
    is not dumpable any more, other processes of the same user can read neither these nor
    its descriptors (proc(5), prctl(2): PR_SET_DUMPABLE).

    Returns:
        Why arguments and environment can still be read, "" where they cannot.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    # Field 48 and on of proc_pid_stat(5), counted from 3 behind the name, which may hold anything.
    stat = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    if len(stat) < 49:
        return "this system does not say where they lie, as an emulator of processors does not"
    arg_start, arg_end, env_start, env_end = map(int, stat[45:49])
    if arg_start:
        _overwrite(arg_start, arg_end, TITLE)
    if env_start:
        position = env_start
        for entry in ctypes.string_at(env_start, env_end - env_start).split(b"\0"):
            name, equals, value = entry.partition(b"=")
            if equals and name not in HARMLESS:
                ctypes.memset(position + len(name) + 1, 0, len(value))
            position += len(entry) + 1
    return ""


def _overwrite(start: int, end: int, text: bytes) -> None:
    # The last byte stays zero, else the kernel takes what follows for arguments, too.
    text = text[: max(end - start - 1, 0)]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))


def environment_value(flag: str) -> str | None:
    """What the environment gives for a flag: NUMERAI_PREDICT_POST_DATA for `post_data`."""
    return os.environ.get(f"NUMERAI_PREDICT_{flag.upper()}")
