"""The Docker engine of this machine: a container for each model, known by its labels."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import Mount

from numerai_fleet.engines.base import Ended, EngineError
from numerai_fleet.engines.local import BESIDE, Limits, Unusable, Workshop, processor, room
from numerai_fleet.manifest import Model

RUN, MODEL, PROCESSOR = (f"numerai-fleet.{key}" for key in ("run", "model", "processor"))
OUT, MANIFEST = "/out", "/run/numerai/manifest.jsonl"
ENDED = ("exited", "dead")
# What a launcher that runs as root needs of root's rights, to give the model another user's: so no
# model can read the launcher's manifest.
CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"]


class Docker:
    """Args:
    folder: of the run.
    parallel: how many models at once; None is as many as there are processors.
    network: of Docker's, that containers are in.
    """

    pause = 0.1

    def __init__(
        self, folder: Path, limits: Limits, parallel: int | None, network: str = "bridge"
    ) -> None:
        self.client = self._connect()
        self.limits = limits
        self.network = network
        engine = self.client.info()
        self.parallel = parallel or engine["NCPU"]
        # The engine says how many it has, not which: those of this process, if it has as many. Else,
        # and without the right to give them (rootless), the predictor chooses.
        here = sorted(os.sched_getaffinity(0))
        can_give = engine.get("CPUSet") and len(here) == engine["NCPU"]
        self._processors = here if can_give else []
        self.workshop = Workshop(folder, self._fetch)
        self.run = run_id(folder)
        self._running: list[int | None] = []  # their processors
        self._images: set[str] = set()
        self._told: list[Container] = []
        self._refused: list[Ended] = []

    def running(self) -> set[str]:
        names = set()
        for container in self._containers():
            labels = container.attrs["Labels"]
            if container.status == "created" or MODEL not in labels:
                # Its submitter was killed before it could start it, or while it waited for data.
                _remove(container)
            elif container.status not in ENDED:
                names.add(labels[MODEL])
        return names

    def room(self) -> int:
        return room(self.parallel, len(self._running), self.limits)

    def start(self, models: Sequence[Model]) -> None:
        self._forget()
        for model in models:
            self._pull(model.image)
            try:
                prepared = self.workshop.prepare(model)
            except Unusable as error:
                self._refused.append(Ended(model.name, 2, None, str(error)))
                continue
            mounts = [Mount(OUT, str(prepared.out), "bind")]
            mounts += [Mount(MANIFEST, str(prepared.manifest), "bind", read_only=True)]
            mounts += [
                Mount(str(path), str(path), "bind", read_only=True) for path in prepared.mounts
            ]
            flags = [f"--manifest={MANIFEST}", "--index=0", "--require-sandbox"]
            flags += [f"--result={OUT}/result.json", *self.limits.flags(model)]
            flags += [f"--output_dir={OUT if prepared.keeps_predictions else '/tmp'}"]
            memory = self.limits.of(model)
            chosen = processor(model, self.limits, self._processors, self._running)
            labels = {MODEL: model.name} | ({} if chosen is None else {PROCESSOR: str(chosen)})
            self._container(model.image, flags, mounts, labels, memory, chosen)
            self._running.append(chosen)

    def ended(self) -> list[Ended]:
        self._forget()
        containers = [each for each in self._containers() if MODEL in each.attrs["Labels"]]
        exited = [each for each in containers if each.status in ENDED and _is_there(each)]
        going_on = [each.attrs["Labels"] for each in containers if each.status not in ENDED]
        self._running = [int(it[PROCESSOR]) if PROCESSOR in it else None for it in going_on]
        self._told, refused, self._refused = exited, self._refused, []
        return [*refused, *(self._ended(container) for container in exited)]

    def stop(self) -> None:
        for container in self._containers():
            _remove(container)

    def _connect(self) -> docker.DockerClient:
        """Raises EngineError: it does not answer."""
        try:
            client = docker.from_env()
            client.ping()
        except DockerException as error:
            raise EngineError(
                f"no Docker engine answers ({error}). Start one, or name it in DOCKER_HOST."
            ) from None
        return client

    def _options(self) -> dict[str, Any]:
        """Further options of containers."""
        return {}

    def _forget(self) -> None:
        """What was told is noted by now; the same model may be started again."""
        told, self._told = self._told, []
        for container in told:
            # In this order: whoever is killed in between, the next one still finds the container.
            self.workshop.clear(container.labels[MODEL])
            _remove(container)

    def _ended(self, container: Container) -> Ended:
        name = container.labels[MODEL]
        state = container.attrs["State"]
        result = self.workshop.gather(name)
        message = state["Error"] or ("killed for memory" if state["OOMKilled"] else "")
        if result is None and not message:
            message = container.logs(tail=5).decode(errors="replace").strip()
        return Ended(name, state["ExitCode"], result, message, container.id or "")

    def _containers(self) -> list[Container]:
        """As the engine lists them, with their labels: one request, however many there are. Those that it
        removes were told to an earlier submitter, which asked it to."""
        try:
            filters = {"label": f"{RUN}={self.run}"}
            found = self.client.containers.list(all=True, filters=filters, sparse=True)
            return [container for container in found if container.status != "removing"]
        except (DockerException, OSError) as error:
            raise EngineError(f"the engine does not answer any more: {error}") from None

    def _container(
        self,
        image: str,
        flags: list[str],
        mounts: list[Mount],
        labels: dict[str, str],
        memory: int,
        processor: int | None = None,
    ) -> Container:
        try:
            return self.client.containers.run(
                image,
                flags,
                detach=True,
                labels={RUN: self.run, **labels},
                mounts=mounts,
                user="0:0",
                network=self.network,
                read_only=True,
                tmpfs={"/tmp": "mode=1777"},
                cap_drop=["ALL"],
                cap_add=CAPABILITIES,
                security_opt=["no-new-privileges"],
                mem_limit=memory + BESIDE,
                cpuset_cpus=None if processor is None else str(processor),
                environment=passed_on(),
                **self._options(),
            )
        except APIError as error:
            raise EngineError(f"{image} cannot be started: {error.explanation}") from None

    def _pull(self, image: str) -> None:
        if image in self._images:
            return
        try:
            self.client.images.get(image)
        except ImageNotFound:
            try:
                self.client.images.pull(image)
            except APIError as error:
                raise EngineError(
                    f"there is no image {image} here, and it cannot be pulled: {error.explanation}. "
                    "Build and load it, or name where it is with --registry."
                ) from None
        self._images.add(image)

    @contextmanager
    def _fetch(self, model: Model, source: str, folder: Path) -> Iterator[Callable[[], object]]:
        self._pull(model.image)
        # An address is a secret.
        given = folder.with_suffix(".source")
        given.touch(0o600)
        given.write_text(source)
        mounts = [Mount(OUT, str(folder), "bind"), Mount("/run/source", str(given), "bind")]
        flags = ["--fetch", "--dataset=@/run/source", f"--output_dir={OUT}"]
        container = self._container(model.image, flags, mounts, {}, self.limits.memory)
        try:
            yield container.wait
        finally:
            _remove(container)
            given.unlink()


def _is_there(container: Container) -> bool:
    """Asks for all that is known of it, unless it is gone: whoever was killed had asked for its removal."""
    try:
        container.reload()
    except NotFound:
        return False
    return True


def _remove(container: Container) -> None:
    try:
        container.remove(force=True)
    except APIError as error:
        # Somebody else did, or does.
        if error.status_code not in (404, 409):
            raise EngineError(f"{container.short_id} cannot be removed: {error}") from None


def run_id(folder: Path) -> str:
    """What this run's containers are labelled with, the same for all its submitters."""
    path = folder / "run-id"
    if not path.exists():
        path.write_text(secrets.token_hex(8))
    return path.read_text()


def passed_on() -> dict[str, str]:
    """How the network is reached from here; none of it is secret, or it would not be in a container's
    description."""
    names = ("NUMERAI_API_URL", "NUMERAI_TRANSFER_SECONDS")
    return {name: os.environ[name] for name in names if name in os.environ}
