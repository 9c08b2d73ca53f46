"""Docker Swarm: a job for each model, which Swarm places on a node that has room.

What was seen of jobs on Docker 20.10, and is dealt with here:
- a job starts a failed task again, for ever; only a long delay stops it (RestartPolicy);
- tasks of a node that died stay "running", and are not started elsewhere: the node's state tells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

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

from numerai_fleet.engines.base import Ended, EngineError
from numerai_fleet.engines.docker import CAPABILITIES, MODEL, OUT, RUN, passed_on, run_id
from numerai_fleet.engines.local import BESIDE, Limits, Unusable, keep, resolved
from numerai_fleet.manifest import DEFAULTS, Model

MANIFEST = "numerai-manifest"  # in /run/secrets
CACHE = "/cache"
# The tasks' states that are an end (docker.com, "Swarm task states").
ENDS = ("complete", "failed", "shutdown", "rejected", "orphaned", "remove")
YEAR = 365 * 24 * 3600 * 10**9  # nanoseconds
CPU = 10**9  # nanoCPUs
# Seconds in which a manager has to answer, and a node to hand over a log.
PATIENCE = 30
LOG_PATIENCE = 10

Answer = TypeVar("Answer")


class Swarm:
    """Args:
    folder: of the run.
    parallel: how many models Swarm has at once, waiting ones too; None is twice as many as its
        nodes have processors.
    network: of Swarm's nodes, that containers are in; None is their own bridge.
    output_dir: a folder that all nodes see, for predictions that are not uploaded.
    """

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
            self._logs = docker.from_env(timeout=LOG_PATIENCE)
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
        self._refused: list[Ended] = []

    def running(self) -> set[str]:
        ended = {end.name for end, _ in self._ends()}
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
        ends = self._ends()
        self._outstanding = len(self._services()) - len(ends)
        self._told, refused, self._refused = [service for _, service in ends], self._refused, []
        return [*refused, *(self._with_result(end, service) for end, service in ends)]

    def stop(self) -> None:
        for service in self._services():
            self._remove(service["ID"])

    def _ends(self) -> list[tuple[Ended, str]]:
        """The tries that ended, without their results, each with its service."""
        states = {node["ID"]: node["Status"]["State"] for node in self._ask(self.client.api.nodes)}
        services = {service["ID"]: service for service in self._services()}
        filters = {"label": f"{RUN}={self.run}"}
        found: dict[str, tuple[Ended, str]] = {}
        for task in self._ask(self.client.api.tasks, filters):
            service = services.get(task["ServiceID"])
            down = states.get(task.get("NodeID", "")) == "down"
            if service is None or not (down or task["Status"]["State"] in ENDS):
                continue
            name = service["Spec"]["Labels"][MODEL]
            found.setdefault(service["ID"], (_end(name, task), service["ID"]))
        return list(found.values())

    def _with_result(self, end: Ended, service: str) -> Ended:
        # A node that is gone has the log as well.
        result = self._result(service, end.name) if end.code is not None else None
        out = self.output_dir / end.name if self.output_dir else None
        return end._replace(result=keep(self.folder, end.name, result, out))

    def _result(self, service: str, name: str) -> dict[str, Any] | None:
        """The last line of its standard output. The log can come after the task's end."""

        def read() -> dict[str, Any] | None:
            try:
                log = b"".join(self._logs.api.service_logs(service, stdout=True, stderr=False))
                result = json.loads(log.strip().rpartition(b"\n")[2])
            except (DockerException, requests.RequestException, ValueError):
                return None
            return result if isinstance(result, dict) and result.get("entry") == name else None

        again = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda result: result is None),
            wait=tenacity.wait_fixed(0.5),
            stop=tenacity.stop_after_attempt(4),
            retry_error_callback=lambda state: None,
        )
        return again(read)

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
            restart_policy=RestartPolicy("on-failure", delay=YEAR),
            networks=[self.network] if self.network else None,
        )
        mode = ServiceMode("replicated-job", replicas=1, concurrency=1)
        self._ask(self.client.api.create_service, template, name, labels, mode)

    def _entry(self, model: Model) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
        """A line whose files and variables are read here, and the secrets of Swarm that it names.

        Raises Unusable: one of these is not there.
        """
        entry = {**DEFAULTS, **model.entry}
        named = {}
        for flag in ("model", "dataset", "benchmarks", "post_url", "post_data"):
            value = entry.get(flag)
            if isinstance(value, Mapping) and "secret" in value:
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
        filters = {"label": f"{RUN}={self.run}"}
        return self._ask(self.client.api.services, filters)

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


def _end(name: str, task: dict[str, Any]) -> Ended:
    status = task["Status"]
    if status["State"] not in ENDS:
        return Ended(name, None, message="its node is gone", key=task["ID"])
    code = status.get("ContainerStatus", {}).get("ExitCode", 0) or None
    if status["State"] != "failed":
        code = 0 if status["State"] == "complete" else None
    return Ended(name, code, message=status.get("Err", ""), key=task["ID"])
