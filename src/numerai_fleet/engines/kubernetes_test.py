from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import kubernetes_validate
import pytest
import yaml

from numerai_fleet.engines import kubernetes
from numerai_fleet.engines.base import EngineError
from numerai_fleet.engines.kubernetes import Kubernetes
from numerai_fleet.engines.local import Limits
from numerai_fleet.manifest import Model

LINE = {"model": "https://s3.example/m.pkl?X-Amz-Signature=hush", "post_url": "https://s3.example/"}


class Api(ThreadingHTTPServer):
    """Keeps what is posted, says of a Pod what a test has put in `states`, and nothing in logs. Where its
    nodes are dead, what is not deleted at once stays."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, dict[str, Any]] = {}
        self.states: dict[str, Any] = {}
        self.deleted: list[str] = []
        self.refusal: tuple[int, str] | None = None
        self.nodes_are_dead = False

    def kind(self, kind: str) -> list[dict[str, Any]]:
        return [each for path, each in self.objects.items() if f"/{kind}/" in path]


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        self._answer({"items": [{**pod, **self.server.states} for pod in self.server.kind("pods")]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.refusal:
            self._answer({"message": self.server.refusal[1]}, self.server.refusal[0])
            return
        body["metadata"]["uid"] = f"uid-{len(self.server.objects)}"
        self.server.objects[f"{self.path}/{body['metadata']['name']}"] = {**body, "status": {}}
        self._answer(body, 201)

    def do_DELETE(self) -> None:
        path = self.path.partition("?")[0]
        self.server.deleted.append(self.path)
        gone = [each for each in self.server.objects if f"{each}/".startswith(f"{path}/")]
        if (
            self.server.nodes_are_dead
            and path.endswith("/pods")
            and "gracePeriodSeconds=0" not in self.path
        ):
            gone = []
        for each in gone:
            del self.server.objects[each]
        all_of_a_kind = path.endswith(("/pods", "/secrets", "/networkpolicies"))
        self._answer({}, 200 if gone or all_of_a_kind else 404)

    def _answer(self, body: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(kubernetes.Kubernetes, "pause", 0)
    with Api() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        path = tmp_path / "kubeconfig"
        address = f"http://127.0.0.1:{server.server_port}"
        _configured(path, address)
        monkeypatch.setattr(
            kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path)
        )
        yield server
        server.shutdown()


def _configured(path: Path, address: str) -> None:
    path.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": address}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [
                    {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "numerai"}}
                ],
                "current-context": "x",
            }
        )
    )


def model(**more: Any) -> Model:
    return Model("a", "registry.example/py311:1", {"name": "a", **LINE, **more})


def engine(folder: Path, **options: Any) -> Kubernetes:
    return Kubernetes(folder, Limits(), **options)


def waiting(reason: str, message: str = "so it is") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"status": {"phase": "Pending", "containerStatuses": [{"state": state}]}}


def test_a_pod_has_its_line_in_a_secret_alone(api, tmp_path):
    engine(tmp_path).start([model(post_data={"secret": "form"})])
    (secret,), (pod,) = api.kind("secrets"), api.kind("pods")
    assert json.loads(secret["stringData"]["manifest.jsonl"])["model"] == LINE["model"]
    assert "hush" not in str([pod, *api.kind("networkpolicies")])
    sources = pod["spec"]["volumes"][-1]["projected"]["sources"]
    assert [each["secret"]["optional"] for each in sources] == [True]
    assert not [volume for volume in pod["spec"]["volumes"] if "hostPath" in volume]


# tests/fleet_kubernetes_test.py shows that 1.20 does.
@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
def test_newer_apis_take_it(api, tmp_path, version):
    fleet = engine(tmp_path, cache_dir="/var/cache/live", output_dir=tmp_path / "out")
    kept = Model("kept", "registry.example/py311:1", {"model": {"secret": "models"}})
    fleet.start([model(), kept])
    kinds = {
        "pods": ("v1", "Pod"),
        "secrets": ("v1", "Secret"),
        "networkpolicies": ("networking.k8s.io/v1", "NetworkPolicy"),
    }
    for name, (group, kind) in kinds.items():
        for each in api.kind(name):
            described = {"apiVersion": group, "kind": kind, **each}
            del described["status"]
            kubernetes_validate.validate(described, version, strict=True)
    assert len(api.kind("pods")) == 2


@pytest.mark.parametrize(
    ("state", "code", "message"),
    [
        (waiting("ImagePullBackOff"), None, "ImagePullBackOff: so it is"),
        (waiting("InvalidImageName"), 2, "InvalidImageName: so it is"),
        (waiting("ContainerCreating"), None, "its node started no container"),
        ({"metadata": {"deletionTimestamp": "now"}}, None, "it was deleted, or its node is gone"),
        ({"status": {"phase": "Failed", "reason": "Evicted"}}, None, "Evicted"),
    ],
)
def test_a_pod_that_ends_in_no_other_way_is_given_up(
    api, tmp_path, monkeypatch, state, code, message
):
    for name in ("GOING", "FAULTY", "COMING_SECONDS"):
        monkeypatch.setattr(kubernetes, name, 0)
    fleet = engine(tmp_path)
    fleet.start([model()])
    if "metadata" in state:
        state = {"metadata": {**api.kind("pods")[0]["metadata"], **state["metadata"]}}
    api.states = state
    (ended,) = fleet.ended()
    assert (ended.code, ended.message) == (code, message)
    assert fleet.ended() == []
    assert not api.objects


@pytest.mark.parametrize("state", [waiting("ContainerCreating"), waiting("ErrImagePull"), {}])
def test_it_is_given_time(api, tmp_path, state):
    fleet = engine(tmp_path)
    fleet.start([model()])
    api.states = state
    assert fleet.ended() == []
    assert fleet.running() == {"a"}


def test_a_pod_that_is_gone_is_lost(api, tmp_path):
    fleet = engine(tmp_path)
    fleet.start([model()])
    uid = api.kind("pods")[0]["metadata"]["uid"]
    for path in [path for path in api.objects if "/pods/" in path]:
        del api.objects[path]
    (ended,) = fleet.ended()
    assert (ended.code, ended.message, ended.key) == (None, "its Pod is gone", uid)


def test_what_ended_while_nobody_looked_is_told_at_once(api, tmp_path, monkeypatch):
    monkeypatch.setattr(kubernetes, "LOG_PATIENCE", 0)
    engine(tmp_path).start([model()])
    api.states = {"status": {"phase": "Succeeded"}}
    # Even without its log: told later, it would be started again before.
    next_one = engine(tmp_path)
    assert next_one.running() == set()
    assert [ended.code for ended in next_one.ended()] == [0]


def test_stop_says_whose_nodes_do_not_confirm_it(api, tmp_path, monkeypatch):
    stopped = engine(tmp_path)
    stopped.start([model()])
    stopped.stop()
    assert not api.objects
    stopped.start([model()])
    api.nodes_are_dead = True
    monkeypatch.setattr(kubernetes, "GOING", 0)
    with pytest.raises(EngineError, match="the nodes of a do not say"):
        stopped.stop()
    assert not api.objects


def test_what_is_tried_again_at_once_is_left_alone(api, tmp_path):
    fleet = engine(tmp_path)
    fleet.start([model()])
    api.states = {"status": {"phase": "Failed", "reason": "Evicted"}}
    assert [ended.code for ended in fleet.ended()] == [None]
    fleet.start([model()])
    api.states = {}
    assert fleet.ended() == []
    assert fleet.running() == {"a"}


def test_what_the_cluster_refuses_is_said(api, tmp_path):
    fleet = engine(tmp_path)
    api.refusal = (403, "exceeded quota: pods=10")
    with pytest.raises(EngineError, match="exceeded quota: pods=10; --parallel"):
        fleet.start([model()])


def test_a_run_stays_where_it_was_started(api, tmp_path):
    engine(tmp_path, namespace="elsewhere")
    assert engine(tmp_path).namespace == "elsewhere"
    with pytest.raises(EngineError, match="was started on .* in the namespace elsewhere"):
        engine(tmp_path, namespace="numerai")
    _configured(tmp_path / "kubeconfig", f"http://localhost:{api.server_port}")
    with pytest.raises(EngineError, match="another --folder"):
        engine(tmp_path)


def test_no_cluster_says_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "kubeconfig"
    monkeypatch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    with pytest.raises(EngineError, match="no cluster is known here .*KUBECONFIG"):
        engine(tmp_path)
    _configured(path, "http://127.0.0.1:1")
    with pytest.raises(EngineError, match="no Kubernetes answers at http://127.0.0.1:1 "):
        engine(tmp_path)
