"""Writes src/numerai_predict/opcodes.py: what each Python's bytecode may look like.

    python build-support/opcodes.py PYTHON... > src/numerai_predict/opcodes.py

Each PYTHON is an interpreter, which tells its own row: this script runs under it too, and so has to
suit Python 3.8. Python 3.14's row is written down below, until an interpreter tells it.
"""

from __future__ import annotations

import dis
import json
import subprocess
import sys
import textwrap
from typing import Any

import opcode

HEADER = '''\
"""What the bytecode of each Python may look like.

Derived by `build-support/opcodes.py`, which also says how. Do not edit.

Per Python: the opcodes by what their argument is (see `bytecode.py`), how many code units of inline
cache follow which opcodes, how many bytes a jump counts in, how many comparisons there are, and by
how many bits COMPARE_OP's argument is shifted.
"""

from __future__ import annotations

from typing import TypedDict


class Opcodes(TypedDict):
    arguments: dict[str, str]
    caches: dict[str, str]
    jump_unit: int
    comparisons: int
    compare_shift: int


OPCODES: dict[tuple[int, int], Opcodes] = {
'''

# Never in the code of a function: caches follow other opcodes, the rest is the interpreter's own.
_INTERNAL = ("CACHE", "RESERVED", "ENTER_EXECUTOR", "INTERPRETER_EXIT", "INSTRUMENTED_", "<")

# As CPython 3.14 numbers them; compared with the tables of xdis 6.3.0.
CPYTHON_3_14: dict[str, Any] = {
    "names": {
        1: "BINARY_SLICE BUILD_TEMPLATE - CALL_FUNCTION_EX CHECK_EG_MATCH CHECK_EXC_MATCH"
        " CLEANUP_THROW DELETE_SUBSCR END_FOR END_SEND EXIT_INIT_CHECK FORMAT_SIMPLE"
        " FORMAT_WITH_SPEC GET_AITER GET_ANEXT GET_ITER - GET_LEN GET_YIELD_FROM_ITER -"
        " LOAD_BUILD_CLASS LOAD_LOCALS MAKE_FUNCTION MATCH_KEYS MATCH_MAPPING MATCH_SEQUENCE NOP"
        " NOT_TAKEN POP_EXCEPT POP_ITER POP_TOP PUSH_EXC_INFO PUSH_NULL RETURN_GENERATOR"
        " RETURN_VALUE SETUP_ANNOTATIONS STORE_SLICE STORE_SUBSCR TO_BOOL UNARY_INVERT"
        " UNARY_NEGATIVE UNARY_NOT WITH_EXCEPT_START BINARY_OP BUILD_INTERPOLATION BUILD_LIST"
        " BUILD_MAP BUILD_SET BUILD_SLICE BUILD_STRING BUILD_TUPLE CALL CALL_INTRINSIC_1"
        " CALL_INTRINSIC_2 CALL_KW COMPARE_OP CONTAINS_OP CONVERT_VALUE COPY COPY_FREE_VARS"
        " DELETE_ATTR DELETE_DEREF DELETE_FAST DELETE_GLOBAL DELETE_NAME DICT_MERGE DICT_UPDATE"
        " END_ASYNC_FOR EXTENDED_ARG FOR_ITER GET_AWAITABLE IMPORT_FROM IMPORT_NAME IS_OP"
        " JUMP_BACKWARD JUMP_BACKWARD_NO_INTERRUPT JUMP_FORWARD LIST_APPEND LIST_EXTEND LOAD_ATTR"
        " LOAD_COMMON_CONSTANT LOAD_CONST LOAD_DEREF LOAD_FAST LOAD_FAST_AND_CLEAR"
        " LOAD_FAST_BORROW LOAD_FAST_BORROW_LOAD_FAST_BORROW LOAD_FAST_CHECK LOAD_FAST_LOAD_FAST"
        " LOAD_FROM_DICT_OR_DEREF LOAD_FROM_DICT_OR_GLOBALS LOAD_GLOBAL LOAD_NAME LOAD_SMALL_INT"
        " LOAD_SPECIAL LOAD_SUPER_ATTR MAKE_CELL MAP_ADD MATCH_CLASS POP_JUMP_IF_FALSE"
        " POP_JUMP_IF_NONE POP_JUMP_IF_NOT_NONE POP_JUMP_IF_TRUE RAISE_VARARGS RERAISE SEND SET_ADD"
        " SET_FUNCTION_ATTRIBUTE SET_UPDATE STORE_ATTR STORE_DEREF STORE_FAST STORE_FAST_LOAD_FAST"
        " STORE_FAST_STORE_FAST STORE_GLOBAL STORE_NAME SWAP UNPACK_EX UNPACK_SEQUENCE YIELD_VALUE",
        128: "RESUME",
    },
    "name": "DELETE_ATTR DELETE_GLOBAL DELETE_NAME IMPORT_FROM IMPORT_NAME LOAD_ATTR LOAD_GLOBAL"
    " LOAD_FROM_DICT_OR_GLOBALS LOAD_NAME LOAD_SUPER_ATTR STORE_ATTR STORE_GLOBAL STORE_NAME",
    "local": "DELETE_DEREF DELETE_FAST LOAD_DEREF LOAD_FAST LOAD_FAST_AND_CLEAR LOAD_FAST_BORROW"
    " LOAD_FAST_CHECK LOAD_FROM_DICT_OR_DEREF MAKE_CELL STORE_DEREF STORE_FAST"
    " LOAD_FAST_BORROW_LOAD_FAST_BORROW LOAD_FAST_LOAD_FAST STORE_FAST_LOAD_FAST"
    " STORE_FAST_STORE_FAST",
    "jump": "END_ASYNC_FOR FOR_ITER JUMP_BACKWARD JUMP_BACKWARD_NO_INTERRUPT JUMP_FORWARD"
    " POP_JUMP_IF_FALSE POP_JUMP_IF_NONE POP_JUMP_IF_NOT_NONE POP_JUMP_IF_TRUE SEND",
    "caches": {
        "BINARY_OP": 5,
        "CALL": 3,
        "CALL_KW": 3,
        "COMPARE_OP": 1,
        "CONTAINS_OP": 1,
        "FOR_ITER": 1,
        "JUMP_BACKWARD": 1,
        "LOAD_ATTR": 9,
        "LOAD_GLOBAL": 4,
        "LOAD_SUPER_ATTR": 1,
        "POP_JUMP_IF_FALSE": 1,
        "POP_JUMP_IF_NONE": 1,
        "POP_JUMP_IF_NOT_NONE": 1,
        "POP_JUMP_IF_TRUE": 1,
        "SEND": 1,
        "STORE_ATTR": 4,
        "STORE_SUBSCR": 1,
        "TO_BOOL": 3,
        "UNPACK_SEQUENCE": 1,
    },
}


def argument(name, kind, version):
    """What an opcode's argument is, as `bytecode.py` names it.

    Args:
        name: the opcode's.
        kind: what the interpreter says of it: const, name, local, free, jump, absolute or plain.
        version: of Python, as (3, minor).
    """
    if name in ("EXTENDED_ARG", "COMPARE_OP"):
        return name.lower()
    if kind == "name":  # Some share their argument with flags in its lowest bits.
        shared = {"LOAD_GLOBAL": (3, 11), "LOAD_ATTR": (3, 12), "LOAD_SUPER_ATTR": (3, 12)}
        if name in shared and version >= shared[name]:
            return "name>>2" if name == "LOAD_SUPER_ATTR" else "name>>1"
    if kind in ("local", "free") and version >= (3, 11):  # One array holds them all.
        return "two locals" if name.count("_FAST") == 2 else "local"
    if kind == "jump":
        backward = "BACKWARD" in name or (name == "END_ASYNC_FOR" and version >= (3, 14))
        return "backward" if backward else "forward"
    return kind


def row():
    """The running interpreter's row."""
    version = sys.version_info[:2]
    kinds = {
        "const": opcode.hasconst,
        "name": opcode.hasname,
        "local": opcode.haslocal,
        "free": opcode.hasfree,
        "jump": opcode.hasjrel,
        "absolute": opcode.hasjabs,
    }
    kind_of = {number: kind for kind, numbers in kinds.items() for number in numbers}
    arguments: dict[str, list[int]] = {}
    for name, number in opcode.opmap.items():
        if number < 256 and not name.startswith(_INTERNAL):
            kind = argument(name, kind_of.get(number, "plain"), version)
            arguments.setdefault(kind, []).append(number)
    caches = getattr(opcode, "_inline_cache_entries", {})
    if isinstance(caches, list):
        caches = {opcode.opname[number]: count for number, count in enumerate(caches)}
    return {
        "version": version,
        "arguments": arguments,
        "caches": by_count({opcode.opmap.get(name, 0): count for name, count in caches.items()}),
        "jump_unit": 2 if version >= (3, 10) else 1,
        "comparisons": len(opcode.cmp_op),
        "compare_shift": compare_shift(),
    }


def compare_shift():
    """By how many bits COMPARE_OP's argument is shifted: see what became of the fifth, `>=`."""
    code = compile("a >= b", "", "eval")
    (found,) = [step.arg or 0 for step in dis.get_instructions(code) if step.opname == "COMPARE_OP"]
    return next(shift for shift in range(8) if found >> shift == opcode.cmp_op.index(">="))


def row_3_14():
    numbers: dict[str, int] = {}
    for first, names in CPYTHON_3_14["names"].items():
        numbers.update((name, first + at) for at, name in enumerate(names.split()) if name != "-")
    kind_of = {"LOAD_CONST": "const"}
    for kind in ("name", "local", "jump"):
        kind_of.update((name, kind) for name in CPYTHON_3_14[kind].split())
    arguments: dict[str, list[int]] = {}
    for name, number in numbers.items():
        kind = argument(name, kind_of.get(name, "plain"), (3, 14))
        arguments.setdefault(kind, []).append(number)
    caches = {numbers[name]: count for name, count in CPYTHON_3_14["caches"].items()}
    return {
        "version": (3, 14),
        "arguments": arguments,
        "caches": by_count(caches),
        "jump_unit": 2,
        "comparisons": 6,
        "compare_shift": 5,
    }


def by_count(caches):
    counts: dict[str, list[int]] = {}
    for number, count in caches.items():
        if count and number:
            counts.setdefault(str(count), []).append(number)
    return counts


def text(row):
    """A row as it is written in opcodes.py."""
    lines = [f"    {tuple(row['version'])}: {{"]
    for table in ("arguments", "caches"):
        if not row[table]:
            lines.append(f'        "{table}": {{}},')
            continue
        lines.append(f'        "{table}": {{')
        for key, numbers in sorted(row[table].items()):
            lines += entry(key, " ".join(map(str, sorted(numbers))))
        lines.append("        },")
    for key in ("jump_unit", "comparisons", "compare_shift"):
        lines.append(f'        "{key}": {row[key]},')
    return "\n".join([*lines, "    },\n"])


def entry(key, numbers):
    whole = f'            "{key}": "{numbers}",'
    if len(whole) <= 100:
        return [whole]
    parts = textwrap.wrap(numbers, 80)
    quoted = [f'            "{part} "' for part in parts[:-1]] + [f'            "{parts[-1]}",']
    return [f'            "{key}": {quoted[0].strip()}', *quoted[1:]]


def main(pythons):
    if not pythons:
        print(json.dumps(row()))
        return
    rows = [json.loads(subprocess.check_output([python, __file__])) for python in pythons]
    known = {tuple(row["version"]): row for row in [row_3_14(), *rows]}
    sys.stdout.write(HEADER + "".join(text(known[version]) for version in sorted(known)) + "}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
