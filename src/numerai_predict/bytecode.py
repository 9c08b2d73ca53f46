"""Which Pythons a function's bytecode can be from.

Bytecode differs from Python to Python, yet says nowhere whose it is. So it is read by the rules of
each: a Python is ruled out where one of its own would not hold, such as an opcode that it does not
have, or a jump into the middle of an instruction. What compilers merely do as a rule, the hints,
only chooses among the Pythons that are left: no model is refused for that.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

from numerai_predict.opcodes import OPCODES

Python = tuple[int, int]

# Bits of co_flags that generators, coroutines and asynchronous generators have.
_GENERATOR_FLAGS = 0x20 | 0x80 | 0x200
_GEN_START = 129
_ANY = 1 << 40


class Code(NamedTuple):
    """What matters here of a code object. Counts are None where they are not known."""

    name: str
    flags: int
    instructions: bytes
    constants: int | None
    names: int | None
    locals: int | None
    cells: int | None
    line_table: bytes | None
    since_3_11: bool

    @classmethod
    def from_arguments(cls, arguments: tuple[Any, ...]) -> Code | None:
        """Of the arguments of `types.CodeType`: 16 until Python 3.10, 18 since.

        Values that were not kept are anything else than int, str, bytes or tuple.

        Returns:
            None if these are not such arguments, or the instructions were not kept.
        """
        if len(arguments) not in (16, 18):
            return None
        flags, instructions, constants, names, variables, _, name = arguments[5:12]
        line_table = arguments[14 if len(arguments) == 18 else 13]
        free, cells = map(_count, arguments[-2:])
        if not isinstance(flags, int) or not isinstance(instructions, bytes):
            return None
        return cls(
            name=name if isinstance(name, str) else "?",
            flags=flags,
            instructions=instructions,
            constants=_count(constants),
            names=_count(names),
            locals=_count(variables),
            cells=None if free is None or cells is None else free + cells,
            line_table=line_table if isinstance(line_table, bytes) else None,
            since_3_11=len(arguments) == 18,
        )


def pythons(code: Code, trust_line_table: bool) -> frozenset[Python]:
    """The Pythons, of those in `OPCODES`, that a code object can be from.

    Args:
        code: the code object.
        trust_line_table: whether what pickled it knew the format that line tables have since
            Python 3.10; cloudpickle before 2.0 did not.
    """
    possible = {
        python
        for python in OPCODES
        if (python >= (3, 11)) == code.since_3_11
        and _starts_as_it_must(python, code)
        and _holds(_rules(python), code)
    }
    for hint in (_has_resume, partial(_suits_line_table, trust=trust_line_table)):
        possible = {python for python in possible if hint(python, code)} or possible
    return frozenset(possible)


def _count(values: object) -> int | None:
    return len(values) if isinstance(values, tuple) else None


def _has_resume(python: Python, code: Code) -> bool:
    """Since 3.11, compilers begin every function with RESUME, if not as its first instruction."""
    resume = {(3, 11): 151, (3, 12): 151, (3, 13): 149, (3, 14): 128}.get(python)
    return resume is None or resume in code.instructions[::2]


def _suits_line_table(python: Python, code: Code, trust: bool) -> bool:
    """The even bytes of a table add up to the code's size in 3.10, to less before (mostly)."""
    if code.since_3_11 or code.line_table is None:
        return True
    whole = sum(code.line_table[::2]) == len(code.instructions)
    return python == (3, 10) if whole else python < (3, 10) or not trust


def _starts_as_it_must(python: Python, code: Code) -> bool:
    """In 3.10, a generator takes what it is first sent off the stack."""
    if python != (3, 10):
        return True
    return (code.instructions[:1] == bytes([_GEN_START])) == bool(code.flags & _GENERATOR_FLAGS)


class _Rules(NamedTuple):
    """A row of `OPCODES`, by opcode: what its argument is (None: no such opcode), its caches."""

    arguments: list[str | None]
    caches: list[int]
    jump_unit: int
    comparisons: int
    compare_shift: int
    one_array_of_locals: bool


@cache
def _rules(python: Python) -> _Rules:
    row = OPCODES[python]
    arguments: list[str | None] = [None] * 256
    for kind, numbers in row["arguments"].items():
        for number in numbers.split():
            arguments[int(number)] = kind
    caches = [0] * 256
    for count, numbers in row["caches"].items():
        for number in numbers.split():
            caches[int(number)] = int(count)
    return _Rules(
        arguments,
        caches,
        row["jump_unit"],
        row["comparisons"],
        row["compare_shift"],
        python >= (3, 11),
    )


def _holds(rules: _Rules, code: Code) -> bool:
    """Whether all instructions are this Python's."""
    room = _room(rules, code)
    instructions, caches, arguments = code.instructions, rules.caches, rules.arguments
    size = len(instructions)
    if size % 2:
        return False
    starts, targets = set(), set()
    at = extended = 0
    while at < size:
        opcode, argument = instructions[at], instructions[at + 1] | extended
        kind = arguments[opcode]
        starts.add(at)
        at += 2
        if caches[opcode]:
            cached = instructions[at : at + 2 * caches[opcode]]
            at += 2 * caches[opcode]
            if at > size or any(cached):
                return False
        extended = 0
        if kind == "plain":
            continue
        if kind is None:
            return False
        if kind == "extended_arg":
            extended = (argument & 0xFFFFFF) << 8
        elif kind in room:
            shift, limit = room[kind]
            if argument >> shift >= limit:
                return False
        elif kind == "two locals":
            if max(argument >> 4, argument & 15) >= room["local"][1]:
                return False
        else:
            targets.add(_target(kind, at, argument * rules.jump_unit))
    return targets <= starts


def _room(rules: _Rules, code: Code) -> dict[str, tuple[int, int]]:
    """By how much to shift an argument of each kind, and below what it then must be."""
    names = _ANY if code.names is None else code.names
    cells = _ANY if code.cells is None else code.cells
    variables = _ANY if code.locals is None else code.locals
    return {
        "const": (0, _ANY if code.constants is None else code.constants),
        "name": (0, names),
        "name>>1": (1, names),
        "name>>2": (2, names),
        "local": (0, variables + cells if rules.one_array_of_locals else variables),
        "free": (0, cells),
        "compare_op": (rules.compare_shift, rules.comparisons),
    }


def _target(kind: str, after: int, distance: int) -> int:
    if kind == "absolute":
        return distance
    return after - distance if kind == "backward" else after + distance


def spoken(versions: Iterable[Python]) -> str:
    """`3.10`, `3.10 or 3.11`, `3.8-3.10`: Pythons in words."""
    ordered = sorted(versions)
    names = [f"{major}.{minor}" for major, minor in ordered]
    consecutive = all(after[1] == before[1] + 1 for before, after in pairwise(ordered))
    if len(names) > 2 and consecutive:
        return f"{names[0]}-{names[-1]}"
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
