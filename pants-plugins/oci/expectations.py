"""Reads what an image is expected to be: YAML, in the spirit of container-structure-test.

docs/images.md describes the format; `examine.py` takes what is read here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping

import yaml  # pants: no-infer-dep

Read = Callable[[Any, str], Any]


class InvalidExpectations(Exception):
    """Names the file, the entry in it, and what is allowed there."""


def read_expectations(file: str, text: str, values: Mapping[str, str]) -> Dict[str, Any]:
    """What the YAML `text` says, with `values` in the places of `${name}`.

    Raises:
        InvalidExpectations: it is not YAML, or says something that has no meaning.
    """
    try:
        # All scalars are text to this loader: 3.10 is a version, and 0755 a mode.
        document = yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise InvalidExpectations(f"{file} is not YAML: {error}") from None
    return _Reader(values).document(document, file)


@dataclass(frozen=True)
class _Reader:
    """Each method takes a value and where it was found, and returns it as its own type."""

    values: Mapping[str, str]

    def document(self, value: Any, where: str) -> Dict[str, Any]:
        text, texts, patterns = self.text, _list_of(self.text), _list_of(self.pattern)
        image = {
            "entrypoint": texts,
            "env": self.mapping(text),
            "labels": self.mapping(text),
            "user": text,
            "workdir": text,
        }
        file = {
            "path": self.path,
            "link": text,
            "mode": self.mode,
            "executable": self.flag,
            "absent": self.flag,
            "contains": patterns,
        }
        user = {"name": text, "uid": self.number, "home": self.path}
        everywhere = {
            "writable": texts,
            "setuid": texts,
            "foreign": texts,
            "dangling": texts,
            "uncompiled": texts,
            "python": text,
            "programs": texts,
        }
        command = {
            "name": text,
            "entrypoint": self.path,
            "args": texts,
            "exit_code": self.number,
            "stdout": patterns,
            "stderr": patterns,
            "written": self.mapping(self.pattern),
            "platforms": _one_of("all", "native"),
        }
        read = _entry(
            {
                "image": _entry(image),
                "files": _list_of(_entry(file, "path")),
                "users": _list_of(_entry(user, "name")),
                "everywhere": _entry(everywhere),
                "commands": _list_of(_entry(command, "name")),
            }
        )(value, where)
        if "uncompiled" in read.get("everywhere", {}) and "python" not in read["everywhere"]:
            raise InvalidExpectations(
                f'{where}: everywhere: `uncompiled` needs `python`, the minor version, such as "3.11"'
            )
        return read

    def text(self, value: Any, where: str) -> str:
        return self._filled(value, where, str)

    def pattern(self, value: Any, where: str) -> str:
        pattern = self._filled(value, where, re.escape)
        try:
            re.compile(pattern)
        except re.error as error:
            raise InvalidExpectations(
                f"{where}: {pattern!r} is not a regular expression: {error}"
            ) from None
        return pattern

    def path(self, value: Any, where: str) -> str:
        path = self.text(value, where)
        if not path.startswith("/"):
            raise InvalidExpectations(f"{where}: {path!r} is not an absolute path")
        return path

    def number(self, value: Any, where: str) -> int:
        return self._converted(value, where, int, "a whole number")

    def mode(self, value: Any, where: str) -> int:
        return self._converted(value, where, lambda text: int(text, 8), "a mode, such as 0755")

    def flag(self, value: Any, where: str) -> bool:
        return _one_of("true", "false")(value, where) == "true"

    def mapping(self, of: Read) -> Read:
        def read(value: Any, where: str) -> Dict[str, Any]:
            _expect(value, where, dict, "names with values")
            return {
                self.text(name, where): of(each, f"{where}: {name}") for name, each in value.items()
            }

        return read

    def _converted(
        self, value: Any, where: str, convert: Callable[[str], int], expected: str
    ) -> int:
        text = self.text(value, where)
        try:
            return convert(text)
        except ValueError:
            raise InvalidExpectations(f"{where}: {text!r} is not {expected}") from None

    def _filled(self, value: Any, where: str, quoted: Callable[[str], str]) -> str:
        def fill(match: "re.Match[str]") -> str:
            if match[1] not in self.values:
                known = ", ".join(sorted(self.values)) or "none"
                raise InvalidExpectations(
                    f"{where}: no value for {match[0]}; the target's `test_values` has {known}"
                )
            return quoted(self.values[match[1]])

        _expect(value, where, str, "text")
        return re.sub(r"\$\{(\w+)\}", fill, value)


def _entry(keys: Mapping[str, Read], *required: str) -> Read:
    """A mapping with some of these keys; an entry of a list is called by its first required one."""

    def read(value: Any, where: str) -> Dict[str, Any]:
        allowed = f"allowed are {', '.join(keys)}"
        _expect(value, where, dict, f"a mapping; {allowed}")
        where = " ".join((where, *(str(value[key]) for key in required if key in value)))
        for key in value:
            if key not in keys:
                raise InvalidExpectations(f"{where}: unknown key {key!r}; {allowed}")
        for key in required:
            if key not in value:
                raise InvalidExpectations(f"{where}: {key!r} is missing; {allowed}")
        return {key: keys[key](each, f"{where}: {key}") for key, each in value.items()}

    return read


def _list_of(of: Read) -> Read:
    """A list; what is alone need not be in one."""

    def read(value: Any, where: str) -> List[Any]:
        items = value if isinstance(value, list) else [value]
        return [of(item, f"{where}[{number}]") for number, item in enumerate(items)]

    return read


def _one_of(*choices: str) -> Read:
    def read(value: Any, where: str) -> str:
        if value not in choices:
            raise InvalidExpectations(f"{where}: {value!r} is none of {', '.join(choices)}")
        return value

    return read


def _expect(value: Any, where: str, kind: type, expected: str) -> None:
    if not isinstance(value, kind):
        raise InvalidExpectations(f"{where}: {value!r} is not {expected}")
