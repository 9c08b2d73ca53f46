from __future__ import annotations

import fnmatch
import json

import botocore.session
import pytest
from botocore.validate import validate_parameters

from numerai_fleet import verdicts
from numerai_fleet.engines.local import Limits
from numerai_fleet.manifest import Model
from numerai_fleet.render import aws_batch
from numerai_fleet.render.batches import Options

LINE = {
    "model": "https://s3.example/m.pkl?X-Amz-Signature=hush",
    "post_url": "https://s3.example/",
    "post_data": "a=b",
}
ROLE = "arn:aws:iam::1:role/numerai"
SECRET = "arn:aws:secretsmanager:us-west-2:1:secret:manifests"


def rendered(count: int, **options: object) -> dict[str, str]:
    models = [Model(f"m-{n}", "py311", {"name": f"m-{n}", **LINE}) for n in range(count)]
    described = Options("round", Limits(), **options)  # type: ignore[arg-type]
    return aws_batch.files(models, described, SECRET, ROLE, "models")


@pytest.mark.parametrize("count", [1, 3])
def test_the_api_takes_it(count):
    api = botocore.session.get_session().get_service_model("batch")
    files = rendered(count, cache_dir="/var/cache/live")
    for operation, name in (
        ("RegisterJobDefinition", "round-0.definition.json"),
        ("SubmitJob", "round-0.job.json"),
    ):
        validate_parameters(json.loads(files[name]), api.operation_model(operation).input_shape)


def test_an_array_has_a_job_for_each_model_and_a_job_alone_an_index():
    files = rendered(3)
    assert json.loads(files["round-0.job.json"])["arrayProperties"] == {"size": 3}
    assert len(files["round-0.jsonl"].splitlines()) == 3
    alone = rendered(1)
    assert "arrayProperties" not in json.loads(alone["round-0.job.json"])
    command = json.loads(alone["round-0.definition.json"])["containerProperties"]["command"]
    assert "--index=0" in command


def test_what_is_not_the_models_fault_is_tried_again():
    strategy = json.loads(rendered(1, retries=4)["round-0.definition.json"])["retryStrategy"]
    assert strategy["attempts"] == 5
    rules = [rule for rule in strategy["evaluateOnExit"] if "onExitCode" in rule]

    def action(code: int) -> str:
        return next(r["action"] for r in rules if fnmatch.fnmatch(str(code), r["onExitCode"]))

    assert {code for code in (*verdicts.NAMES, 137) if action(code) == "RETRY"} == {7, 8, 70, 137}


def test_secrets_are_in_the_manifest_alone():
    files = rendered(2)
    assert "hush" in files.pop("round-0.jsonl")
    assert "hush" not in str(files)
