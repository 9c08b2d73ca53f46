"""Goes through a pickle as unpickling would, executing and importing nothing.

What a pickle says is a program for a stack machine. This one knows the values that tell something
(texts, numbers, bytes, tuples of them, names of globals) and takes everything else for `UNKNOWN`.
Its time and memory are linear in the pickle's size: values are shared and never walked into.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import _compat_pickle

# Beyond this many, the rest of a pickle is not looked at.
MAX_OPCODES = 5_000_000
MAX_BYTES = 2 << 30  # decompressed: a small file can hold terabytes
# Longer texts and bytes are not kept, except for their two ends.
_KEPT_WHOLE = 1 << 16
_END = 1 << 12
_CHUNK = 1 << 20

HIGHEST_PROTOCOL = 5


class NotAPickle(Exception):
    """Unpickling would fail too. Its text says why, as the end of a sentence about the file."""


class _TooLong(Exception):
    """The rest is not looked at."""


class Global(NamedTuple):
    """What a pickle names for import."""

    module: str
    name: str


class Long(NamedTuple):
    """The two ends of a long text or long bytes."""

    head: bytes
    tail: bytes


class _Unknown:
    pass


UNKNOWN = _Unknown()
_CODE_TYPE = Global("types", "CodeType")


class Machine:
    """Reads one pickle. Its private methods are the opcodes' actions, below it.

    Args:
        file: buffered, at the pickle's beginning.
        on_code: called with the arguments of each code object.
        on_item: called with each text key and its value that are put into a dict.
        on_payload: called with the texts and bytes that may hold a whole model, or both their ends.
    """

    def __init__(
        self,
        file: BinaryIO,
        on_code: Callable[[tuple[Any, ...]], None],
        on_item: Callable[[str, Any], None],
        on_payload: Callable[[bytes], None],
    ) -> None:
        self.file = file
        self.on_code, self.on_item, self.on_payload = on_code, on_item, on_payload
        self.protocol = 0
        self.imports: dict[str, dict[str, None]] = {}
        self.complete = False
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}

    def run(self) -> None:
        """Read until the pickle ends, or until it is too long (`complete` stays False).

        Raises:
            NotAPickle: it breaks off, or is none.
        """
        read, actions = self.file.read, _ACTIONS
        for _ in range(MAX_OPCODES):
            opcode = read(1)
            action = actions.get(opcode)
            if action is None:
                raise self._wrong_opcode(opcode)
            try:
                action(self)
            except _TooLong:
                return
            except IndexError:
                raise NotAPickle(f"takes from an empty stack at byte {self.file.tell()}") from None
            if opcode == b".":
                self.complete = True
                return

    def _wrong_opcode(self, opcode: bytes) -> NotAPickle:
        where = self.file.tell()
        if not opcode:
            return NotAPickle(f"breaks off after {where} bytes" if where else "is empty")
        return NotAPickle(f"has no pickle opcode at byte {where - 1}, but {opcode!r}")

    # Reading arguments of opcodes

    def _take(self, size: int) -> bytes:
        data = self.file.read(size)
        if len(data) < size:
            raise NotAPickle(f"breaks off after {self.file.tell()} bytes")
        return data

    def _number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self._take(size), "little", signed=signed)

    def _line(self, encoding: str = "utf-8") -> str:
        """The text until the line's end, or the beginning of it if it is long."""
        line = part = self.file.readline(_KEPT_WHOLE)
        while not part.endswith(b"\n"):
            part = self._within_bounds(self.file.readline(_KEPT_WHOLE))
            if not part:
                raise NotAPickle(f"breaks off after {self.file.tell()} bytes")
        return line.removesuffix(b"\n").decode(encoding, "replace")

    def _within_bounds(self, data: bytes) -> bytes:
        if self.file.tell() > MAX_BYTES:
            raise _TooLong
        return data

    def _integer_line(self) -> None:
        line = self._line()
        self._push(int(line) if line.isdecimal() and len(line) < 20 else UNKNOWN)

    def _index_line(self) -> int:
        line = self._line()
        if not line.isdecimal() or len(line) > 20:
            raise NotAPickle(f"has no number before byte {self.file.tell()}")
        return int(line)

    def _payload(self, size: int) -> bytes | Long:
        """`size` bytes, never allocating more than there are, whatever a pickle claims."""
        if size <= _KEPT_WHOLE:
            data = self._take(size)
            if size >= 64:
                self.on_payload(data)
            return data
        head = tail = self._take(_END)
        left = size - _END
        while left:
            chunk = self._within_bounds(self._take(min(left, _CHUNK)))
            left -= len(chunk)
            tail = (tail + chunk)[-_END:]
        self.on_payload(head + tail)
        return Long(head, tail)

    # The stack

    def _pop(self) -> Any:
        return self._stack.pop()

    def _push(self, value: Any = UNKNOWN) -> None:
        self._stack.append(value)

    def _mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        values = self._stack
        self._stack = self._marked.pop()
        return values

    def _replace(self, count: int, value: Any = UNKNOWN) -> None:
        """Put one value where `count` were."""
        if count > len(self._stack):
            raise IndexError
        del self._stack[len(self._stack) - count :]
        self._push(value)

    def _tuple(self, size: int) -> None:
        self._replace(size, tuple(self._stack[len(self._stack) - size :]))

    def _pop_or_unmark(self) -> None:
        self._pop() if self._stack else self._pop_mark()

    def _remember(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise NotAPickle(f"recalls what it never stored at byte {self.file.tell()}")
        self._push(self._memo[index])

    # What values mean

    def _set_protocol(self) -> None:
        self.protocol = self._number(1)
        if self.protocol > HIGHEST_PROTOCOL:
            raise NotAPickle(
                f"has pickle protocol {self.protocol}, but Python reads up to {HIGHEST_PROTOCOL}: "
                "make it again with a lower protocol"
            )

    def _text(self, size: int) -> None:
        data = self._payload(size)
        try:
            self._push(data if isinstance(data, Long) else str(data, "utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            raise NotAPickle(f"has text that is not UTF-8 before byte {self.file.tell()}") from None

    def _import(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            return UNKNOWN
        if self.protocol < 3:  # these have Python 2's names
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        self.imports.setdefault(module, {})[name] = None
        return Global(module, name)

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._push(self._import(module, name))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        self._push(self._call(function, arguments if isinstance(arguments, tuple) else ()))

    def _call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """The value of the few calls that matter."""
        if not isinstance(function, Global) or not arguments:
            return UNKNOWN
        module, name = function
        first = arguments[0]
        if function == _CODE_TYPE:
            self.on_code(arguments)
        elif name == "_builtin_type" and first == "CodeType":
            return _CODE_TYPE
        elif name == "subimport" and isinstance(first, str) and module.startswith("cloudpickle"):
            self.imports.setdefault(first, {})
        elif function == ("_codecs", "encode") and isinstance(first, str):  # bytes until protocol 2
            return first.encode("latin-1", "replace")
        return UNKNOWN

    def _items(self, values: list[Any]) -> Any:
        """Puts keys and values, which take turns, into a dict."""
        for key, value in zip(values[::2], values[1::2]):
            if isinstance(key, str):
                self.on_item(key, value)

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._items([key, value])

    def _persistent(self) -> None:
        raise NotAPickle(
            "refers to objects outside of it (persistent ids), as what torch.save wrote does"
        )


Action = Callable[[Machine], Any]


def _push_number(size: int, signed: bool = False) -> Action:
    return lambda m: m._push(m._number(size, signed))


def _push_bytes(size: int) -> Action:
    return lambda m: m._push(m._payload(m._number(size)))


def _push_text(size: int) -> Action:
    return lambda m: m._text(m._number(size))


def _unknown(take: Action) -> Action:
    """Read an argument or pop what it takes, and push what is made of it."""

    def action(machine: Machine) -> None:
        take(machine)
        machine._push()

    return action


def _skip(size: int) -> Action:
    return _unknown(lambda m: m._take(size))


def _constant(value: Any) -> Action:
    return lambda m: m._push(value)


def _nothing(machine: Machine) -> None:
    pass


# By opcode; `pickletools` describes them all.
_ACTIONS: dict[bytes, Action] = {
    b"\x80": Machine._set_protocol,
    b".": Machine._pop,
    b"\x95": lambda m: m._take(8),  # FRAME
    b"(": Machine._mark,
    b"0": Machine._pop_or_unmark,
    b"1": Machine._pop_mark,
    b"2": lambda m: m._push(m._stack[-1]),
    # Numbers and constants
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"I": Machine._integer_line,
    b"J": _push_number(4, signed=True),
    b"K": _push_number(1),
    b"M": _push_number(2),
    b"L": _unknown(Machine._line),
    b"\x8a": lambda m: m._push(m._number(m._number(1), signed=True)),
    b"\x8b": _unknown(lambda m: m._payload(m._number(4))),
    b"F": _unknown(Machine._line),
    b"G": _skip(8),
    # Texts and bytes
    b"S": _unknown(Machine._line),
    b"T": _push_text(4),
    b"U": _push_text(1),
    b"V": lambda m: m._push(m._line("raw-unicode-escape")),
    b"X": _push_text(4),
    b"\x8c": _push_text(1),
    b"\x8d": _push_text(8),
    b"B": _push_bytes(4),
    b"C": _push_bytes(1),
    b"\x8e": _push_bytes(8),
    b"\x96": _push_bytes(8),  # a bytearray
    b"\x97": _constant(UNKNOWN),
    b"\x98": _nothing,
    # Collections
    b")": _constant(()),
    b"t": lambda m: m._push(tuple(m._pop_mark())),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"]": _constant(UNKNOWN),
    b"a": Machine._pop,
    b"e": Machine._pop_mark,
    b"l": _unknown(Machine._pop_mark),
    b"}": _constant(UNKNOWN),
    b"s": Machine._set_item,
    b"u": lambda m: m._items(m._pop_mark()),
    b"d": _unknown(lambda m: m._items(m._pop_mark())),
    b"\x8f": _constant(UNKNOWN),
    b"\x90": Machine._pop_mark,
    b"\x91": _unknown(Machine._pop_mark),
    # The memo
    b"p": lambda m: m._remember(m._index_line()),
    b"q": lambda m: m._remember(m._number(1)),
    b"r": lambda m: m._remember(m._number(4)),
    b"\x94": lambda m: m._remember(len(m._memo)),
    b"g": lambda m: m._recall(m._index_line()),
    b"h": lambda m: m._recall(m._number(1)),
    b"j": lambda m: m._recall(m._number(4)),
    # Names, and objects made with them
    b"c": lambda m: m._push(m._import(m._line(), m._line())),
    b"\x93": Machine._stack_global,
    b"i": _unknown(lambda m: (m._import(m._line(), m._line()), m._pop_mark())),
    b"o": _unknown(Machine._pop_mark),
    b"R": Machine._reduce,
    b"\x81": lambda m: m._replace(2),
    b"\x92": lambda m: m._replace(3),
    b"b": Machine._pop,
    b"\x82": _skip(1),
    b"\x83": _skip(2),
    b"\x84": _skip(4),
    b"P": Machine._persistent,
    b"Q": Machine._persistent,
}
