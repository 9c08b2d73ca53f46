from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml

from numerai_fleet.engines.local import Limits
from numerai_fleet.manifest import ManifestError, Model
from numerai_fleet.render import kubernetes
from numerai_fleet.render.batches import Options

LINE = {
    "model": "https://s3.example/m.pkl?X-Amz-Signature=hush",
    "post_url": "https://s3.example:9000/",
    "post_data": {"secret": "form-fields"},
}


def model(name: str, image: str = "registry.example/py311", **more: Any) -> Model:
    return Model(name, image, {"name": name, "image": image, **LINE, **more})


def rendered(*models: Model, **options: Any) -> list[dict[str, Any]]:
    files = kubernetes.files(models, Options("round-7", Limits(), **options))
    return list(yaml.safe_load_all(files["round-7.yaml"]))


def of_kind(kind: str, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] == kind]


# per-index limits are new in the first; the last is the newest that the library knows.
@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
def test_the_api_takes_it(version):
    several = [model(f"m-{number}") for number in range(3)]
    documents = rendered(*several, model("n", "py312"), parallel=2, cache_dir="/var/cache/live")
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)
    assert [document["kind"] for document in documents] == [
        *("NetworkPolicy", "Secret", "Job", "Secret", "Job")
    ]


def test_a_job_has_an_index_for_each_model_of_an_image():
    first, second = of_kind("Job", rendered(model("a"), model("b", "py312"), model("c")))
    assert (first["spec"]["completions"], second["spec"]["completions"]) == (2, 1)
    secret, _ = of_kind("Secret", rendered(model("a"), model("b", "py312"), model("c")))
    assert [
        yaml.safe_load(line)["name"]
        for line in secret["stringData"].popitem()[1].split("\n")
        if line
    ] == ["a", "c"]


def test_what_is_not_the_models_fault_is_tried_again():
    (job,) = of_kind("Job", rendered(model("a"), model("b"), retries=4))
    assert job["spec"]["backoffLimitPerIndex"] == 4
    failing = job["spec"]["podFailurePolicy"]["rules"][-1]
    assert failing["action"] == "FailIndex"
    assert failing["onExitCodes"]["values"] == [1, 2, 3, 4, 5, 6]


def test_secrets_are_in_secrets_alone():
    documents = rendered(model("a"))
    assert "hush" in str(of_kind("Secret", documents))
    assert "hush" not in str([each for each in documents if each["kind"] != "Secret"])
    (job,) = of_kind("Job", documents)
    mounted = job["spec"]["template"]["spec"]["volumes"][-1]["projected"]["sources"]
    assert mounted == [
        {"secret": {"name": "form-fields", "items": [{"key": "value", "path": "form-fields"}]}}
    ]


def test_a_changed_manifest_is_another_secret():
    (before,) = of_kind("Secret", rendered(model("a")))
    (after,) = of_kind("Secret", rendered(model("a", model="https://s3.example/other.pkl")))
    assert before["metadata"]["name"] != after["metadata"]["name"]


def test_pods_reach_the_manifests_ports_and_no_metadata_service():
    (policy,) = of_kind("NetworkPolicy", rendered(model("a")))
    servers, _ = policy["spec"]["egress"]
    assert [port["port"] for port in servers["ports"]] == [80, 443, 9000]
    assert servers["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]


def test_memory_is_the_models_own_and_the_launchers():
    (job,) = of_kind("Job", rendered(model("a", limits={"memory": "1GB"})))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == str((1 << 30) + (512 << 20))


def test_jobs_end_where_secrets_do():
    long = [
        model(f"m-{number}", dataset="https://s3.example/" + "x" * 100_000) for number in range(9)
    ]
    jobs = of_kind("Job", rendered(*long))
    assert [job["spec"]["completions"] for job in jobs] == [3, 3, 3]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ({"model": {"env": "MODEL"}}, "a: model: the container has no such env"),
        ({"model": {"secret": "Model"}}, "a: Model cannot name a secret"),
    ],
)
def test_what_only_this_machine_has_is_refused(line, fault):
    with pytest.raises(ManifestError, match=fault):
        rendered(model("a", **line))


def test_predictions_must_go_somewhere():
    kept = Model("a", "py311", {"name": "a", "model": "https://s3.example/m.pkl"})
    with pytest.raises(ManifestError, match="a: without post_url"):
        rendered(kept)
