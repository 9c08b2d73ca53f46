from __future__ import annotations

import json
from pathlib import Path

import pytest

from numerai_fleet.manifest import ManifestError, dump, load

LEAST = {"name": "a", "python": "3.11", "model": "https://s3.example/a.pkl?X-Amz-Signature=hush"}


@pytest.fixture
def written(tmp_path: Path):
    def write(*lines: object) -> str:
        path = tmp_path / "manifest.jsonl"
        path.write_text(
            "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
        )
        return str(path)

    return write


def test_models_are_those_of_the_lines(written):
    other = {**LEAST, "name": "b", "full": True}
    own = {"name": "c", "image": "registry.example/own:1", "model": {"secret": "model-c"}}
    models = load(written(LEAST, "", other, own), registry="registry.example/numerai/")
    assert {model.name: model.image for model in models} == {
        "a": "registry.example/numerai/numerai_predict_py_3_11",
        "b": "registry.example/numerai/numerai_predict_py_3_11_full",
        "c": "registry.example/own:1",
    }
    assert load(written(dump(models).rstrip("\n"))) == load(written(LEAST, other, own))
    assert "hush" not in repr(models[0])


@pytest.mark.parametrize(
    "change, says",
    [
        ({"python": None}, "needs either python or image"),
        ({"image": "own:1"}, "needs either python or image"),
        ({"model": None}, "'model' is a required property"),
        ({"model": {"file": "a", "env": "A"}}, 'model: must be a string, or {"file": …}'),
        ({"name": "../a"}, "name: does not match"),
        ({"post_url": "https://s3.example/hush"}, "'post_data' is a dependency of 'post_url'"),
        ({"limits": {"memory": "lots of hush"}}, "limits.memory: does not match"),
        ({"limits": {"preset": "all"}}, "limits.preset: 'all' is not one of"),
        ({"modle": "x"}, "'modle' was unexpected"),
        ({"full": "yes"}, "full: must be of type boolean"),
    ],
)
def test_a_fault_is_told_with_its_line_and_without_secrets(written, change, says):
    entry = {key: value for key, value in {**LEAST, "name": "b", **change}.items() if value}
    with pytest.raises(ManifestError) as error:
        load(written(LEAST, "", entry))
    assert str(error.value).startswith("line 3: ")
    assert says in str(error.value)
    assert "hush" not in str(error.value)


def test_all_faults_are_told_at_once(written):
    with pytest.raises(ManifestError) as error:
        load(written(LEAST, '{"name": ', LEAST, [1]))
    assert [line.partition(": ")[0] for line in str(error.value).splitlines()] == [
        *("line 2", "line 3", "line 4"),
    ]
    assert "line 3: the name a is line 1's" in str(error.value)


def test_a_manifest_without_models_is_an_error(written, tmp_path):
    for source in (written(""), str(tmp_path / "gone.jsonl")):
        with pytest.raises(ManifestError):
            load(source)
