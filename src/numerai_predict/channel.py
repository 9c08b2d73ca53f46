"""How launcher and worker talk: packets over a socket pair, each one a whole message.

The launcher trusts no packet: it carries the token that only the worker's own code was given, has
a bounded size, and holds JSON and text, never a pickle.
"""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple

CHUNK = 1 << 16  # bytes of text in a packet; a socket's buffer holds several
TOKEN = 16  # bytes
LONGEST = TOKEN + CHUNK  # of a packet; JSON is kept shorter by whoever sends it


class Violation(Exception):
    """A packet that the other side's own code did not send."""


class Message(NamedTuple):
    kind: str
    fields: dict[str, Any]
    fds: list[int]


class Channel:
    """One end of the pair.

    Args:
        end: a connected SOCK_SEQPACKET socket.
        token: what every packet begins with, in both directions.
    """

    def __init__(self, end: socket.socket, token: bytes) -> None:
        self.socket = end
        self._token = token

    def open(self) -> None:
        """Tell the other end the token. Raises OSError if it is gone."""
        self.socket.sendall(self._token)

    @classmethod
    def accept(cls, end: socket.socket) -> Channel:
        """The end that is told the token."""
        return cls(end, end.recv(TOKEN))

    def send(self, kind: str, fd: int | None = None, **fields: Any) -> None:
        """Send a message, with an open file if `fd` is given.

        Raises:
            OSError: the other side is gone.
        """
        packet = self._token + json.dumps([kind, fields]).encode()
        socket.send_fds(self.socket, [packet], [] if fd is None else [fd])

    def receive(self) -> Message | None:
        """The next message, None when the other side is gone.

        Raises:
            Violation: it is none of the other side's own.
        """
        try:
            packet, fds, flags, _ = socket.recv_fds(self.socket, LONGEST, 1)
        except ConnectionError:
            return None
        if not packet:
            return None
        if flags & socket.MSG_TRUNC or not packet.startswith(self._token):
            raise Violation
        try:
            kind, fields = json.loads(packet[TOKEN:])
            return Message(str(kind), dict(fields), fds)
        except (ValueError, TypeError, RecursionError):
            raise Violation from None

    def send_text(self, kind: str, text: bytes, **fields: Any) -> None:
        """Send a message followed by a text of any length."""
        self.send(kind, size=len(text), **fields)
        for start in range(0, len(text), CHUNK):
            self.socket.sendall(self._token + text[start : start + CHUNK])

    def receive_chunk(self) -> bytes:
        """The next piece of a text.

        Raises:
            Violation: it is none, or the other side is gone.
        """
        packet = self.socket.recv(LONGEST)
        if not packet.startswith(self._token) or len(packet) == TOKEN:
            raise Violation
        return packet[TOKEN:]
