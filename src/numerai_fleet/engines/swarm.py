"""Docker Swarm: a service for each model, which Swarm places on a node that has room, and runs once.

What was seen on Docker 20.10, and is dealt with here:
- a replicated job starts a failed task again, for ever, and such a task keeps its processor after the
  job was removed, until no node has room; hence services of one replica, and no restarts;
- tasks of a node that died stay "running", and are not started elsewhere: the node's state tells;
- the log of a task that ended there never comes, and never ends.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import docker
import requests
import tenacity
from docker.errors import APIError, DockerException, NotFound
from docker.types import (
    ContainerSpec,
    Mount,
    Resources,
    RestartPolicy,
    SecretReference,
    ServiceMode,
    TaskTemplate,
)

from numerai_fleet.engines.base import Ended, EngineError, listed
from numerai_fleet.engines.docker import CAPABILITIES, MODEL, OUT, RUN, passed_on, run_id
from numerai_fleet.engines.local import BESIDE, Limits, Unusable, keep, resolved
from numerai_fleet.manifest import DEFAULTS, Model

MANIFEST = "numerai-manifest"  # in /run/secrets
CACHE = "/cache"
# The tasks' states that are an end (docker.com, "Swarm task states").
ENDS = ("complete", "failed", "shutdown", "rejected", "orphaned", "remove")
CPU = 10**9  # nanoCPUs
# Seconds in which a manager has to answer; for one look at a log; in which a log has to come.
PATIENCE = 30
LOG_SECONDS = 5
LOG_PATIENCE = 20

Answer = TypeVar("Answer")


class _Try(NamedTuple):
    """One that ended.

    Args:
        ended: without a result.
        service: its ID.
        has_log: False where its node is gone, or no container of it ever ran.
    """

    ended: Ended
    service: str
    has_log: bool


class Swarm:
    """Args:
    folder: of the run.
    parallel: how many models Swarm has at once, waiting ones too; None is twice as many as its
        nodes have processors.
    network: of Swarm's nodes, that containers are in; None is their own bridge.
    output_dir: a folder that all nodes see, for predictions that are not uploaded.
    """

    pause = 0.2

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        parallel: int | None = None,
        network: str | None = None,
        output_dir: Path | None = None,
    ) -> None:
        try:
            self.client = docker.from_env(timeout=PATIENCE)
            state = self.client.info()["Swarm"]
        except DockerException as error:
            raise EngineError(f"no Docker engine answers ({error}).") from None
        if not state.get("ControlAvailable"):
            raise EngineError(
                "this Docker engine manages no Swarm: run `docker swarm init`, or name a manager in "
                "DOCKER_HOST"
            )
        self.folder = folder.absolute()
        for name in ("results", "predictions"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.limits = limits
        self.parallel = parallel
        self.network = network
        self.output_dir = output_dir.absolute() if output_dir else None
        self.run = run_id(folder)
        self._outstanding = 0
        self._told: list[str] = []
        # By services' IDs.
        self._first_asked: dict[str, float] = {}
        self._results: dict[str, dict[str, Any]] = {}
        self._refused: list[Ended] = []

    def running(self) -> set[str]:
        tries = self._tries()
        # What `ended` does not tell the first time would be taken for what never ran.
        while not all([self._is_known(each) for each in tries]):
            time.sleep(self.pause)
        ended = {each.ended.name for each in tries}
        return {service["Spec"]["Labels"][MODEL] for service in self._services()} - ended

    def room(self) -> int:
        return (self.parallel or 2 * self._processors()) - self._outstanding

    def start(self, models: Sequence[Model]) -> None:
        for model in models:
            try:
                self._submit(model)
            except Unusable as error:
                self._refused.append(Ended(model.name, 2, None, str(error)))
            except APIError as error:
                raise EngineError(f"Swarm refuses {model.name}: {error.explanation}") from None
            else:
                self._outstanding += 1

    def ended(self) -> list[Ended]:
        for service in self._told:
            self._remove(service)
            self._first_asked.pop(service, None)
            self._results.pop(service, None)
        tries = self._tries()
        self._outstanding = len(self._services()) - len(tries)
        told, self._refused, self._told = self._refused, [], []
        for each in tries:
            if self._is_known(each):
                name = each.ended.name
                out = self.output_dir / name if self.output_dir else None
                result = keep(self.folder, name, self._results.get(each.service), out)
                told.append(each.ended._replace(result=result))
                self._told.append(each.service)
        return told

    def stop(self) -> None:
        for service in self._services():
            self._remove(service["ID"])
        deadline = time.monotonic() + PATIENCE
        while going := self._going():
            if time.monotonic() > deadline:
                raise EngineError(
                    f"the nodes of {listed(going)} do not say that they ended; `docker ps` there tells"
                )
            time.sleep(self.pause)

    def _going(self) -> list[str]:
        """Models that nodes still end: tasks outlive their services for as long."""
        states = self._node_states()
        return sorted(
            task["Spec"]["ContainerSpec"]["Labels"][MODEL]
            for task in self._tasks()
            if task["Status"]["State"] not in ENDS and states.get(task.get("NodeID", "")) == "ready"
        )

    def _tries(self) -> list[_Try]:
        """Those that ended, without their results."""
        states = self._node_states()
        services = {service["ID"]: service for service in self._services()}
        found: dict[str, _Try] = {}
        for task in self._tasks():
            service = services.get(task["ServiceID"])
            down = states.get(task.get("NodeID", "")) == "down"
            if service is None or not (down or task["Status"]["State"] in ENDS):
                continue
            ended = _ended(service["Spec"]["Labels"][MODEL], task)
            has_log = ended.code is not None and not down
            found.setdefault(service["ID"], _Try(ended, service["ID"], has_log))
        return list(found.values())

    def _is_known(self, tried: _Try) -> bool:
        """Whether all is known of it that ever will be."""
        if tried.has_log and tried.service not in self._results:
            if (result := self._result(tried)) is None:
                return self._waited_for(tried.service)
            self._results[tried.service] = result
        return True

    def _result(self, tried: _Try) -> dict[str, Any] | None:
        """The last line of its standard output; None as long as there is none."""
        # Docker's client sets no limit to the time that a log may take.
        api = self.client.api
        address = f"{api.base_url}/v{api.api_version}/services/{tried.service}/logs"
        try:
            answer = api.get(address, params={"stdout": 1}, timeout=LOG_SECONDS)
            result = json.loads(_payload(answer.content).strip().rpartition(b"\n")[2])
        except (requests.RequestException, ValueError):
            return None
        named = isinstance(result, dict) and result.get("entry") == tried.ended.name
        return result if named else None

    def _waited_for(self, service: str) -> bool:
        """Whether its log was asked for long enough: it can come after the task's end."""
        first = self._first_asked.setdefault(service, time.monotonic())
        return time.monotonic() >= first + LOG_PATIENCE

    def _submit(self, model: Model) -> None:
        name = f"{self.run}-{hashlib.sha256(model.name.encode()).hexdigest()[:12]}"
        labels = {RUN: self.run, MODEL: model.name}
        # Of an earlier submitter that did not come to remove it.
        for old in self._services():
            if old["Spec"]["Name"] == name:
                self._remove(old["ID"])
        # Its own line, for root in its container alone.
        entry, named = self._entry(model)
        line = f"{json.dumps(entry)}\n".encode()
        secrets = {MANIFEST: self._secret(name, line, labels), **named}
        flags = [
            f"--manifest=/run/secrets/{MANIFEST}",
            "--index=0",
            "--require-sandbox",
            "--result=-",
        ]
        flags += [f"--cache_dir={CACHE}", *self.limits.flags(model)]
        mounts = [Mount("/tmp", None, "tmpfs", tmpfs_mode=0o1777)]
        mounts += [Mount(CACHE, "numerai-fleet-cache", "volume")]
        if self.output_dir and "post_url" not in model.entry:
            out = self.output_dir / model.name
            out.mkdir(parents=True, exist_ok=True)
            mounts.append(Mount(OUT, str(out), "bind"))
            flags.append(f"--output_dir={OUT}")
        memory = self.limits.of(model) + BESIDE
        container = ContainerSpec(
            model.image,
            args=flags,
            env=[f"{key}={value}" for key, value in passed_on().items()],
            user="0:0",
            labels=labels,
            mounts=mounts,
            secrets=[
                SecretReference(id, secret, filename, mode=0o400)
                for filename, (id, secret) in secrets.items()
            ],
            read_only=True,
            cap_drop=["ALL"],
            cap_add=[f"CAP_{capability}" for capability in CAPABILITIES],
        )
        template = TaskTemplate(
            container,
            resources=Resources(mem_limit=memory, mem_reservation=memory, cpu_reservation=CPU),
            restart_policy=RestartPolicy("none"),
            networks=[self.network] if self.network else None,
        )
        mode = ServiceMode("replicated", replicas=1)
        self._ask(self.client.api.create_service, template, name, labels, mode)

    def _entry(self, model: Model) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
        """A line whose files and variables are read here, and the secrets of Swarm that it names.

        Raises Unusable: one of these is not there.
        """
        entry = {**DEFAULTS, **model.entry}
        named = {}
        for flag in ("model", "dataset", "benchmarks", "post_url", "post_data"):
            value = entry.get(flag)
            if isinstance(value, dict) and "secret" in value:
                named[value["secret"]] = self._named(model.name, flag, value["secret"])
            elif value is not None:
                entry[flag] = resolved(model.name, flag, value)
        return entry, named

    def _named(self, model: str, flag: str, secret: str) -> tuple[str, str]:
        found = self._ask(self.client.api.secrets, {"name": secret})
        for each in found:  # the filter takes beginnings of names as well
            if each["Spec"]["Name"] == secret:
                return each["ID"], secret
        raise Unusable(f"{model}: {flag}: Swarm has no secret {secret}")

    def _secret(self, name: str, data: bytes, labels: dict[str, str]) -> tuple[str, str]:
        for old in self._ask(self.client.api.secrets, {"name": name}):
            # Of a submitter that was killed before it came to the service.
            self._ask(self.client.api.remove_secret, old["ID"])
        return self._ask(self.client.api.create_secret, name, data, labels)["ID"], name

    def _remove(self, service: str) -> None:
        try:
            name = self._ask(self.client.api.inspect_service, service)["Spec"]["Name"]
            self._ask(self.client.api.remove_service, service)
        except NotFound:
            return
        for secret in self._ask(self.client.api.secrets, {"name": name}):
            self._ask(self.client.api.remove_secret, secret["ID"])

    def _services(self) -> list[dict[str, Any]]:
        return self._ask(self.client.api.services, {"label": f"{RUN}={self.run}"})

    def _tasks(self) -> list[dict[str, Any]]:
        return self._ask(self.client.api.tasks, {"label": f"{RUN}={self.run}"})

    def _node_states(self) -> dict[str, str]:
        """By their IDs."""
        nodes = self._ask(self.client.api.nodes)
        return {node["ID"]: node["Status"]["State"] for node in nodes}

    def _processors(self) -> int:
        """Of the nodes that take tasks."""
        nodes = self._ask(self.client.api.nodes)
        usable = [
            node
            for node in nodes
            if node["Status"]["State"] == "ready" and node["Spec"]["Availability"] == "active"
        ]
        return sum(node["Description"]["Resources"]["NanoCPUs"] // CPU for node in usable)

    def _ask(self, question: Callable[..., Answer], *args: Any) -> Answer:
        """A manager's answer; while managers elect a new leader there is none."""
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(requests.RequestException)
            & tenacity.retry_if_not_exception_type(APIError),
            wait=tenacity.wait_fixed(1),
            stop=tenacity.stop_after_delay(PATIENCE),
            reraise=True,
        )
        try:
            return again(question, *args)
        except APIError:
            raise
        except requests.RequestException as error:
            raise EngineError(f"the Swarm manager does not answer any more: {error}") from None


def _ended(name: str, task: dict[str, Any]) -> Ended:
    status = task["Status"]
    if status["State"] not in ENDS:
        return Ended(name, None, message="its node is gone", key=task["ID"])
    code = status.get("ContainerStatus", {}).get("ExitCode", 0) or None
    if status["State"] != "failed":
        code = 0 if status["State"] == "complete" else None
    return Ended(name, code, message=status.get("Err", ""), key=task["ID"])


def _payload(log: bytes) -> bytes:
    """What a log's frames hold: each has a head of 8 bytes, the last 4 its length (Docker's API,
    "Stream format")."""
    found = []
    while log:
        end = 8 + int.from_bytes(log[4:8], "big")
        found.append(log[8:end])
        log = log[end:]
    return b"".join(found)
