"""Kubernetes: a Pod for each try of a model, which it places on a node that has room, and runs once.

Bare Pods and no Jobs, because `Follow` tries again itself: a Job starts another Pod for one that was
deleted with its node, even if its model had already uploaded. Hence, dealt with here:
- a Pod whose node died is deleted in time, but stays until its kubelet says that it ended, for ever;
- one that its node could not even start waits for ever, too;
- one that was deleted, or whose node was, is gone without a word.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tenacity
import urllib3
from kubernetes import client, config
from kubernetes.client import ApiException

from numerai_fleet import verdicts
from numerai_fleet.engines import kubernetes_pod
from numerai_fleet.engines.base import Ended, EngineError, listed
from numerai_fleet.engines.docker import OUT, passed_on, run_id
from numerai_fleet.engines.kubernetes_pod import CONTAINER, RUN, labels
from numerai_fleet.engines.local import BESIDE, Limits, Unusable, keep, resolved
from numerai_fleet.manifest import DEFAULTS, Model
from numerai_fleet.render.batches import CACHE, SECRET_NAME

MODEL = "numerai-fleet/model"  # an annotation: names may be longer than labels
CLUSTER = "cluster"  # in the run's folder
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# Of Pods, where --parallel does not say: what a cluster has room for, only its administrator may ask.
PARALLEL = 100
# Requests at once: an answer takes a far cluster 50 ms, and a model takes four.
REQUESTS = 8
ENDS = ("Succeeded", "Failed")
# Why a container waits, while nothing is wrong.
COMING = ("ContainerCreating", "PodInitializing")
# Seconds in which the cluster has to answer; for one look at a log; in which a log has to come.
PATIENCE = 30
LOG_SECONDS = 5
LOG_PATIENCE = 10
# Seconds until a Pod is given up: of a node that does not answer, and is not trusted to; deleted, and its
# node does not confirm it, of which a kubelet thinks every 10 s; whose container cannot be started, in
# which an image is tried four times; whose container does not come, which includes the time that an image
# takes.
UNREACHABLE = 30
GOING = 30
FAULTY = 60
COMING_SECONDS = 600


class Kubernetes:
    """Args:
    folder: of the run.
    parallel: how many Pods there are at once, waiting ones too.
    namespace: None is the one that the run was started in, else that of kubectl.
    cache_dir: a folder of each node, for datasets; None shares nothing.
    output_dir: a folder that all nodes see, for predictions that are not uploaded.
    """

    pause = 1.0

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        parallel: int | None = None,
        namespace: str | None = None,
        cache_dir: str | None = None,
        output_dir: Path | None = None,
    ) -> None:
        self.folder = folder.absolute()
        for name in ("results", "predictions"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.limits = limits
        self.parallel = parallel or PARALLEL
        self.cache_dir = cache_dir
        self.output_dir = output_dir.absolute() if output_dir else None
        self.run = run_id(folder)
        api, self.namespace = self._connect(namespace)
        self.core = client.CoreV1Api(api)
        self.networking = client.NetworkingV1Api(api)
        self._requests = ThreadPoolExecutor(REQUESTS)
        # By models' names, the UIDs of Pods whose ends were not told.
        self._pods: dict[str, str] = {}
        self._told: list[str] = []
        self._refused: list[Ended] = []
        self._since: dict[tuple[str, str], float] = {}
        self._policies: set[str] = set()
        self._is_clean = False

    def running(self) -> set[str]:
        pods = self._look()
        self._pods = {_model(pod): pod["metadata"]["uid"] for pod in pods}
        return {_model(pod) for pod in pods if not _has_ended(pod)}

    def room(self) -> int:
        return self.parallel - len(self._pods)

    def start(self, models: Sequence[Model]) -> None:
        self._forget()  # or it would be the new Pod of that name that is forgotten
        self._is_clean = False
        entries: dict[str, tuple[Model, dict[str, Any]]] = {}
        for model in models:
            try:
                entries[model.name] = model, self._entry(model)
            except Unusable as error:
                self._refused.append(Ended(model.name, 2, None, str(error)))
        self._let_out([entry for _, entry in entries.values()])
        uids = self._requests.map(lambda each: self._submit(*each), entries.values())
        self._pods.update(zip(entries, uids))

    def ended(self) -> list[Ended]:
        """All that have ended: what is not told the first time is not known to have run before."""
        self._forget()
        told, self._refused = self._refused, []
        found = {pod["metadata"]["uid"]: pod for pod in self._look()}
        seen = [self._end(name, uid, found.get(uid)) for name, uid in self._pods.items()]
        ends = [end for end in seen if end]
        logs = self._requests.map(
            lambda end: self._log(end) if _has_ended(found.get(end.key)) else "", ends
        )
        for end, log in zip(ends, logs):
            out = self.output_dir / end.name if self.output_dir else None
            result = keep(self.folder, end.name, _result(end.name, log), out)
            message = "" if result else ": ".join(filter(None, (end.message, log)))
            told.append(end._replace(result=result, message=message))
            self._told.append(end.name)
        return told

    def stop(self) -> None:
        # Gently at first: then a Pod goes once its node has confirmed that it ended.
        self._delete_all(self.core.delete_collection_namespaced_pod)
        deadline = time.monotonic() + GOING
        while going := sorted(_model(pod) for pod in self._look() if not _has_ended(pod)):
            if time.monotonic() > deadline:
                break
            time.sleep(self.pause)
        self._delete_all(self.core.delete_collection_namespaced_pod, grace_period_seconds=0)
        self._clean()
        if going:
            raise EngineError(
                f"the nodes of {listed(going)} do not say that they ended; their Pods were removed, but where "
                "a node is not dead, its models may end as they would have"
            )

    def _connect(self, namespace: str | None) -> tuple[client.ApiClient, str]:
        """The cluster that kubectl would speak to, and the namespace.

        Raises EngineError: it does not answer, or the run is in another.
        """
        configuration = client.Configuration()
        # Whoever asks tries again; the library would say so on standard error.
        configuration.retries = False
        configuration.connection_pool_maxsize = REQUESTS
        here = _configure(configuration)
        kept = self.folder / CLUSTER
        earlier = json.loads(kept.read_text()) if kept.exists() else [configuration.host, None]
        chosen = [configuration.host, namespace or earlier[1] or here]
        if kept.exists() and chosen != earlier:
            raise EngineError(
                f"this run was started on {earlier[0]}, in the namespace {earlier[1]}, and some of its "
                f"models may still run there: go on with that one, not {' and '.join(chosen)}, or take "
                f"another --folder; if nothing runs there, remove {kept}"
            )
        api = client.ApiClient(configuration)
        try:
            once = {"limit": 1, "_preload_content": False, "_request_timeout": PATIENCE}
            client.CoreV1Api(api).list_namespaced_pod(chosen[1], **once)
        except ApiException as error:
            raise EngineError(f"{chosen[0]} refuses: {_said(error)}") from None
        except urllib3.exceptions.HTTPError as error:
            raise EngineError(
                f"no Kubernetes answers at {chosen[0]} ({error}): choose another by `kubectl config "
                "use-context`, or KUBECONFIG"
            ) from None
        kept.write_text(json.dumps(chosen))
        return api, chosen[1]

    def _end(self, name: str, uid: str, pod: dict[str, Any] | None) -> Ended | None:
        """How a try ended, if it did; without its result."""
        if pod is None:
            return Ended(name, None, message="its Pod is gone", key=uid)
        if _has_ended(pod):
            return _ended(name, pod)
        code, what, patience, message = _fault(pod)
        if what and self._waited(uid, what, patience):
            return Ended(name, code, message=message, key=uid)
        return None

    def _log(self, end: Ended) -> str:
        """Its last lines, as far as it has any. A kubelet that is busy gives them later than it says
        that it ended, and one that is dead never."""
        deadline = time.monotonic() + LOG_PATIENCE
        said = ""
        while end.code in verdicts.NAMES:
            said = self._read(end.name)
            # Without a result it ended only if it failed at once.
            is_whole = _result(end.name, said) or (said and end.code)
            if is_whole or time.monotonic() > deadline:
                break
            time.sleep(self.pause)
        return said

    def _read(self, model: str) -> str:
        try:
            answer = self.core.read_namespaced_pod_log(
                *(self._name(model), self.namespace),
                container=CONTAINER,
                tail_lines=5,
                # Else the library reads it as JSON, and writes it as Python.
                _preload_content=False,
                _request_timeout=LOG_SECONDS,
            )
            return answer.data.decode(errors="replace").strip()
        except (ApiException, urllib3.exceptions.HTTPError):
            return ""

    def _waited(self, uid: str, what: str, patience: float) -> bool:
        """Whether that much time went by since it was first asked about."""
        first = self._since.setdefault((uid, what), time.monotonic())
        return time.monotonic() >= first + patience

    def _submit(self, model: Model, entry: dict[str, Any]) -> str:
        """Returns the Pod's UID."""
        name = self._name(model.name)
        metadata = {
            "name": name,
            "labels": labels(self.run),
            "annotations": {MODEL: model.name},
        }
        # Of an earlier submitter that did not come to remove it.
        self._remove(name)
        secret = {
            "metadata": metadata,
            "immutable": True,
            "stringData": {"manifest.jsonl": f"{json.dumps(entry)}\n"},
        }
        pod = {"metadata": metadata, "spec": self._spec(model, entry)}
        # A conflict is with a request of the same try, whose answer did not come.
        self._ask(self.core.create_namespaced_secret, self.namespace, secret, unless=409)
        made = self._ask(self.core.create_namespaced_pod, self.namespace, pod, unless=409)
        made = made or self._ask(self.core.read_namespaced_pod, name, self.namespace)
        return made["metadata"]["uid"]

    def _spec(self, model: Model, entry: dict[str, Any]) -> dict[str, Any]:
        flags = ["--index=0", "--require-sandbox", "--result=-", *self.limits.flags(model)]
        folders = {}
        if self.cache_dir:
            flags.append(f"--cache_dir={CACHE}")
            folders[CACHE] = self.cache_dir
        if self.output_dir and "post_url" not in entry:
            out = self.output_dir / model.name
            out.mkdir(parents=True, exist_ok=True)
            flags.append(f"--output_dir={OUT}")
            folders[OUT] = str(out)
        memory = self.limits.of(model) + BESIDE
        env = [{"name": key, "value": value} for key, value in passed_on().items()]
        container = {**kubernetes_pod.container(model.image, flags, memory), "env": env}
        name = self._name(model.name)
        # Where one is missing the predictor says so: a Pod that wants it would wait for it, for ever.
        named = [{**kubernetes_pod.named_secret(each), "optional": True} for each in _named(entry)]
        return {
            **kubernetes_pod.spec(container, name, named, folders),
            # A launcher ends at once, and what it did not upload yet is lost anyway.
            "terminationGracePeriodSeconds": 1,
            "tolerations": [
                {
                    "key": f"node.kubernetes.io/{state}",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": UNREACHABLE,
                }
                for state in ("not-ready", "unreachable")
            ],
        }

    def _entry(self, model: Model) -> dict[str, Any]:
        """A line whose files and variables are read here.

        Raises Unusable: one of these is not there, or what it calls a secret cannot be one.
        """
        entry = {**DEFAULTS, **model.entry}
        for name in _named(entry):
            if not SECRET_NAME.fullmatch(name):
                raise Unusable(f"{model.name}: {name} cannot name a Secret")
        for flag in ("model", "dataset", "benchmarks", "post_url", "post_data"):
            value = entry.get(flag)
            if value is not None and not (isinstance(value, dict) and "secret" in value):
                entry[flag] = resolved(model.name, flag, value)
        return entry

    def _let_out(self, entries: Sequence[dict[str, Any]]) -> None:
        """To the ports that these name. Policies add up: there is one for each set of ports."""
        policy = kubernetes_pod.network_policy({}, labels(self.run), entries)
        digest = hashlib.sha256(json.dumps(policy["spec"]).encode()).hexdigest()[:8]
        if digest in self._policies:
            return
        policy["metadata"] = {"name": f"numerai-{self.run}-{digest}", "labels": labels(self.run)}
        create = self.networking.create_namespaced_network_policy
        self._ask(create, self.namespace, policy, unless=409)
        self._policies.add(digest)

    def _forget(self) -> None:
        """What was told is noted by now; the same model may be started again."""
        list(self._requests.map(self._remove, map(self._name, self._told)))
        for name in self._told:
            uid = self._pods.pop(name)
            self._since = {key: since for key, since in self._since.items() if key[0] != uid}
        self._told = []
        if not self._pods and not self._is_clean:
            self._clean()

    def _remove(self, name: str) -> None:
        """At once: a kubelet that is dead would never confirm it, and others heed it as well."""
        gone = {"unless": 404, "grace_period_seconds": 0}
        self._ask(self.core.delete_namespaced_pod, name, self.namespace, **gone)
        self._ask(self.core.delete_namespaced_secret, name, self.namespace, **gone)

    def _clean(self) -> None:
        """Where no Pod is left. Secrets may be of a submitter that was killed before it came to the Pod."""
        self._delete_all(self.core.delete_collection_namespaced_secret)
        self._delete_all(self.networking.delete_collection_namespaced_network_policy)
        self._policies.clear()
        self._is_clean = True

    def _delete_all(self, delete: Callable[..., Any], **options: Any) -> None:
        self._ask(delete, self.namespace, label_selector=f"{RUN}={self.run}", **options)

    def _look(self) -> list[dict[str, Any]]:
        """This run's Pods."""
        found = self._ask(
            self.core.list_namespaced_pod, self.namespace, label_selector=f"{RUN}={self.run}"
        )
        return found["items"]

    def _name(self, model: str) -> str:
        """One for all tries of a model: there can only be one at once."""
        return f"numerai-{self.run}-{hashlib.sha256(model.encode()).hexdigest()[:12]}"

    def _ask(
        self, question: Callable[..., Any], *args: Any, unless: int | None = None, **options: Any
    ) -> Any:
        """The cluster's answer, as it is: objects of the library's own would take 2 ms of a Pod.

        Args:
            unless: the status of an answer that is as good.

        Raises:
            EngineError: it refuses, or does not answer.
        """
        options |= {"_preload_content": False, "_request_timeout": PATIENCE}
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_fixed(1),
            stop=tenacity.stop_after_delay(PATIENCE),
            reraise=True,
        )
        try:
            return json.loads(again(question, *args, **options).data)
        except ApiException as error:
            if error.status == unless:
                return None
            hint = "; --parallel keeps within a quota" if "quota" in _said(error) else ""
            raise EngineError(f"Kubernetes refuses: {_said(error)}{hint}") from None
        except urllib3.exceptions.HTTPError as error:
            raise EngineError(f"Kubernetes does not answer any more: {error}") from None


def _configure(configuration: client.Configuration) -> str:
    """With what kubectl would use, or a Pod; returns the namespace."""
    try:
        config.load_kube_config(client_configuration=configuration)
        _, current = config.list_kube_config_contexts()
        return current["context"].get("namespace", "default")
    except config.ConfigException as error:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            raise EngineError(
                f"no cluster is known here ({error}): name one in a kubeconfig, as for kubectl, or in "
                "KUBECONFIG"
            ) from None
        return OWN_NAMESPACE.read_text().strip()


def _may_pass(error: BaseException) -> bool:
    """Whether asking again can help."""
    if isinstance(error, ApiException):
        return error.status == 429 or (error.status or 500) >= 500
    return isinstance(error, urllib3.exceptions.HTTPError)


def _said(error: ApiException) -> str:
    try:
        return json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"


def _named(entry: dict[str, Any]) -> list[str]:
    """The Secrets that a line refers to."""
    values = [value for value in entry.values() if isinstance(value, dict)]
    return sorted({value["secret"] for value in values if "secret" in value})


def _model(pod: dict[str, Any]) -> str:
    return pod["metadata"]["annotations"][MODEL]


def _result(model: str, log: str) -> dict[str, Any] | None:
    """The last line of its log; None where that is another."""
    try:
        result = json.loads(log.rpartition("\n")[2])
    except ValueError:
        return None
    return result if isinstance(result, dict) and result.get("entry") == model else None


def _has_ended(pod: dict[str, Any] | None) -> bool:
    return pod is not None and pod["status"].get("phase") in ENDS


def _container(pod: dict[str, Any]) -> dict[str, Any]:
    """Its state; empty where no kubelet told it yet."""
    statuses = pod["status"].get("containerStatuses") or [{}]
    return statuses[0].get("state", {})


def _ended(name: str, pod: dict[str, Any]) -> Ended:
    """One that Kubernetes says has ended. Where a node evicted it, its container need not have."""
    uid = pod["metadata"]["uid"]
    if pod["status"]["phase"] == "Succeeded":
        return Ended(name, 0, key=uid)
    terminated = _container(pod).get("terminated", {})
    message = _words(pod["status"]) or _words(terminated)
    return Ended(name, terminated.get("exitCode"), message=message, key=uid)


def _fault(pod: dict[str, Any]) -> tuple[int | None, str, float, str]:
    """What keeps a Pod from ending: with what code it is given up, what it is called, after how many
    seconds, and why. It has no name where there is nothing wrong."""
    waiting = _container(pod).get("waiting", {})
    if "deletionTimestamp" in pod["metadata"] or pod["status"].get("phase") == "Unknown":
        why = _words(pod["status"]) or "it was deleted, or its node is gone"
        return None, "going", GOING, why
    if waiting.get("reason") == "InvalidImageName":
        return 2, "faulty", 0, _words(waiting)
    if waiting.get("reason", COMING[0]) not in COMING:
        return None, "faulty", FAULTY, _words(waiting)
    if waiting:
        return None, "coming", COMING_SECONDS, "its node started no container"
    return None, "", 0, ""


def _words(state: dict[str, Any]) -> str:
    return ": ".join(state[key] for key in ("reason", "message") if state.get(key))
