from __future__ import annotations

import pytest

from oci.expectations import InvalidExpectations, read_expectations


def read(text: str, **values: str):
    return read_expectations("image.yaml", text, values)


def test_values_have_their_own_types() -> None:
    text = """
        image: {entrypoint: [/usr/bin/python3, -I], env: {DEBUG: 1, LANG: no}, user: "", workdir: /}
        files: [{path: /tmp, mode: 1777}, {path: /bin/sh, absent: true}]
        users: [{name: root, uid: 0, home: /root}]
        everywhere: {writable: [/tmp], setuid: [], uncompiled: [], python: 3.10}
        commands: [{name: version, args: [--version], exit_code: 3, stdout: "^1", platforms: native}]
        """
    assert read(text) == {
        "image": {
            "entrypoint": ["/usr/bin/python3", "-I"],
            "env": {"DEBUG": "1", "LANG": "no"},
            "user": "",
            "workdir": "/",
        },
        "files": [{"path": "/tmp", "mode": 0o1777}, {"path": "/bin/sh", "absent": True}],
        "users": [{"name": "root", "uid": 0, "home": "/root"}],
        "everywhere": {"writable": ["/tmp"], "setuid": [], "uncompiled": [], "python": "3.10"},
        "commands": [
            {
                "name": "version",
                "args": ["--version"],
                "exit_code": 3,
                "stdout": ["^1"],
                "platforms": "native",
            }
        ],
    }


def test_values_of_the_target_are_filled_in() -> None:
    text = """
        files: [{path: "/usr/bin/python${minor}", contains: "^v${minor}$"}]
        image: {env: {"PY_${minor}": "${minor}"}}
        """
    assert read(text, minor="3.12") == {
        "files": [{"path": "/usr/bin/python3.12", "contains": [r"^v3\.12$"]}],
        "image": {"env": {"PY_3.12": "3.12"}},
    }


@pytest.mark.parametrize(
    "text, says",
    [
        ("files: [", "is not YAML: "),
        ("- 1", "image.yaml: ['1'] is not a mapping; allowed are image, files, users, "),
        ("file: []", "unknown key 'file'; allowed are image, files, "),
        ("files: [{path: /a, mod: 1}]", "files[0] /a: unknown key 'mod'; allowed are path, link, "),
        ("files: [{path: /a}, {mode: 1}]", "files[1]: 'path' is missing; allowed are path, "),
        ("files: [{path: a}]", "files[0] a: path: 'a' is not an absolute path"),
        ("files: [{path: /a, mode: rwx}]", "files[0] /a: mode: 'rwx' is not a mode, such as 0755"),
        ("files: [{path: /a, absent: maybe}]", "absent: 'maybe' is none of true, false"),
        ("users: [{name: a, uid: b}]", "users[0] a: uid: 'b' is not a whole number"),
        ("image: {env: [A=1]}", "image: env: ['A=1'] is not names with values"),
        (
            "commands: [{name: a b, stdout: '('}]",
            "commands[0] a b: stdout[0]: '(' is not a regular",
        ),
        ("commands: [{name: a, args: [[b]]}]", "commands[0] a: args[0]: ['b'] is not text"),
        ("commands: [{name: a, platforms: amd64}]", "'amd64' is none of all, native"),
        ("image: {workdir: '${dir}'}", "no value for ${dir}; the target's `test_values` has minor"),
        ("everywhere: {uncompiled: []}", "everywhere: `uncompiled` needs `python`"),
    ],
)
def test_an_error_names_the_entry_and_what_is_allowed(text: str, says: str) -> None:
    with pytest.raises(InvalidExpectations) as error:
        read(text, minor="3.12")
    assert str(error.value).startswith("image.yaml") and says in str(error.value)
