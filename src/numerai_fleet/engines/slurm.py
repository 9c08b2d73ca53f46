"""Slurm: an array job for each lot of models, whose tasks are told apart by files that all nodes see.

What a task has come to is a file's to tell (`slurm_array`), for as long as the run's folder is there;
what Slurm's queue says, which forgets, only counts for tasks that left no such file. The queue is
looked at first, then the files: so a task that ends meanwhile is not taken for lost.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from numerai_fleet.engines import slurm_array
from numerai_fleet.engines.base import Ended, EngineError
from numerai_fleet.engines.bundle import IN
from numerai_fleet.engines.docker import OUT, passed_on, run_id
from numerai_fleet.engines.local import BESIDE, FILES, Limits, Unusable, Workshop
from numerai_fleet.engines.slurm_array import ENDED, INPUT, TAKEN, Task
from numerai_fleet.engines.unpacked import Images
from numerai_fleet.manifest import Model

FETCH = "fetch-"
# In these a task of the queue is no more, and did not end by itself (squeue(1), "JOB STATE CODES").
FAILED = {
    *("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
}
GONE = {*FAILED, "COMPLETED"}
# Slurm's words where it is worthwhile to ask again.
PASSING = ("ontact", "timed out", "temporarily")
# Seconds between two looks at the queue, which the whole cluster's users share.
QUEUE_SECONDS = 10
# Seconds in which Slurm has to answer; and a file to appear, because NFS shows new ones late.
PATIENCE = 60


class Try(NamedTuple):
    """A task.

    Args:
        array: its array job's folder.
        number: in that.
    """

    array: str
    number: int


class Slurm:
    """Args:
    folder: of the run, which all nodes see at this path.
    parallel: how many models Slurm has at once, waiting ones too; None is as many as one array job
        may have tasks.
    """

    pause = 0.2

    def __init__(self, folder: Path, limits: Limits, parallel: int | None, images: Images) -> None:
        config = _config()
        self.memory_counts = "MEMORY" in config.get("SelectTypeParameters", "")
        self.largest = int(config.get("MaxArraySize", 1001))
        self.limits = limits
        self.parallel = min(parallel or self.largest, self.largest)
        self.images = images
        self.workshop = Workshop(folder, self._fetch)
        self.run = run_id(folder)
        self.arrays = folder.absolute() / "slurm"
        self._names = dict(self._kept())
        self._outstanding = 0
        self._told: list[Try] = []
        self._refused: list[Ended] = []
        self._states: dict[Try, str] = {}
        self._asked = 0.0
        self._missing: dict[Try, float] = {}

    def running(self) -> set[str]:
        self._look()
        self._cancel(each for each in self._states if each.array.startswith(FETCH))
        codes = self._codes()
        for each in list(self._names.keys() - codes.keys()):
            # Never submitted, or cancelled while it waited. Should it still come, it finds itself taken.
            if self._states.get(each, "COMPLETED") in GONE and self._take(each):
                self._forget(each)
        return {name for each, name in self._names.items() if each not in codes}

    def room(self) -> int:
        return self.parallel - self._outstanding

    def start(self, models: Sequence[Model]) -> None:
        for memory, lot in itertools.groupby(
            sorted(models, key=self.limits.of), key=self.limits.of
        ):
            tasks, lines, names = [], [], []
            for model in lot:
                try:
                    task, line = self._task(model)
                except Unusable as error:
                    self._refused.append(Ended(model.name, 2, None, str(error)))
                    continue
                tasks.append(task)
                lines.append(line)
                names.append(model.name)
            if tasks:
                array = secrets.token_hex(4)
                self._submit(array, tasks, "".join(lines), memory)
                self._names |= {Try(array, number): name for number, name in enumerate(names)}
                self._outstanding += len(tasks)

    def ended(self) -> list[Ended]:
        for each in self._told:
            self._forget(each)
        self._look(QUEUE_SECONDS)
        codes = self._codes()
        for each in self._names.keys() - codes.keys():
            if reason := self._lost(each):
                codes[each] = self._give_up(each, reason)
        self._outstanding = len(self._names) - len(codes)
        self._told, refused, self._refused = list(codes), self._refused, []
        return [*refused, *(self._ended(each, said) for each, said in codes.items())]

    def stop(self) -> None:
        self._look()
        self._cancel(self._states)
        deadline = time.monotonic() + PATIENCE
        while any(state not in GONE for state in self._states.values()):
            if time.monotonic() > deadline:
                raise EngineError(
                    "Slurm still ends the run's jobs; `squeue --me` tells when it has"
                )
            time.sleep(0.5)
            self._look()
        for each in self._names.keys() - self._codes().keys():
            self._forget(each)

    def _task(self, model: Model) -> tuple[Task, str]:
        """The task, and its line of the manifest."""
        image = self.images.get(model.image)
        entry, paths = self.workshop.line(model)
        files = {f"{IN}/{number}/{path.name}": path for number, path in enumerate(paths)}
        inside = {str(path): name for name, path in files.items()}
        entry |= {flag: inside.get(entry[flag], entry[flag]) for flag in FILES}
        flags = ["--manifest=-", "--require-sandbox", f"--result={OUT}/result.json"]
        flags += self.limits.flags(model)
        flags.append(f"--output_dir={'/tmp' if 'post_url' in entry else OUT}")
        return Task(image, flags, files=files), f"{json.dumps(entry)}\n"

    def _submit(self, array: str, tasks: Sequence[Task], input: str, memory: int) -> None:
        reserved = memory + BESIDE if self.memory_counts else None
        script = slurm_array.write(
            self.arrays / array, self._job(array), tasks, input, reserved, passed_on()
        )
        _ask("sbatch", "--parsable", str(script))

    @contextmanager
    def _fetch(self, model: Model, source: str, folder: Path) -> Iterator[Callable[[], object]]:
        flags = ["--fetch", "--dataset=@-", f"--output_dir={OUT}"]
        task = Task(self.images.get(model.image), flags, folder)
        fetch = Try(f"{FETCH}{secrets.token_hex(4)}", 0)
        try:
            self._submit(fetch.array, [task], source, self.limits.memory)
            yield lambda: self._wait_for(fetch)
        finally:
            shutil.rmtree(self.arrays / fetch.array, ignore_errors=True)

    def _wait_for(self, fetch: Try) -> None:
        while not (self._read(fetch) or self._lost(fetch)):
            time.sleep(self.pause)
            self._look(QUEUE_SECONDS)

    def _ended(self, each: Try, said: str) -> Ended:
        name = self._names[each]
        code, message = (int(said), "") if said.isdigit() else (None, said)
        result = self.workshop.gather(name, self._place(each) / slurm_array.OUT)
        if result is None:
            # Both runtimes have 1 for faults of their own as well.
            code = None if code == 1 else code
            message = "\n".join(filter(None, (message, self._log(each))))
        return Ended(name, code, result, message, f"{each.array}/{each.number}")

    def _lost(self, each: Try) -> str:
        """Why this task, which left no exit code, is taken for lost; else nothing."""
        state = self._states.get(each)
        if state in FAILED:
            return f"Slurm says {state}"
        if state not in (None, "COMPLETED"):
            self._missing.pop(each, None)
            return ""
        first = self._missing.setdefault(each, time.monotonic())
        return "Slurm has it no more" if time.monotonic() > first + PATIENCE else ""

    def _give_up(self, each: Try, reason: str) -> str:
        """Notes that it is lost, unless it has come to an end now; returns what is noted."""
        noted = self.arrays / each.array / ENDED / str(each.number)
        new = noted.with_name(f".{each.number}.lost")
        new.write_text(reason)
        try:
            os.link(new, noted)
        except FileExistsError:
            pass
        new.unlink()
        return self._read(each) or reason

    def _look(self, pause: float = 0) -> None:
        """At the queue, if the last look is that many seconds ago."""
        if time.monotonic() < self._asked + pause:
            return
        self._asked = time.monotonic()
        self._states = {}
        query = ("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%j|%K|%T")
        for line in _ask(*query).splitlines():
            job, number, state = line.split("|")
            if job.startswith(self._job("")) and number.isdigit():
                each = Try(job.removeprefix(self._job("")), int(number))
                # It may be there twice, where an answer to sbatch was lost.
                if self._states.get(each, "COMPLETED") in GONE:
                    self._states[each] = state

    def _cancel(self, tries: Iterable[Try]) -> None:
        jobs = sorted({self._job(each.array) for each in tries})
        for job in jobs:
            _ask("scancel", "--me", f"--name={job}")

    def _job(self, array: str) -> str:
        return f"numerai-fleet-{self.run}-{array}"

    def _place(self, each: Try) -> Path:
        return self.arrays / each.array / str(each.number)

    def _take(self, each: Try) -> bool:
        """Whether it was not taken up by a node, and never will be."""
        try:
            (self._place(each) / TAKEN).mkdir()
        except FileExistsError:
            return False
        return True

    def _codes(self) -> dict[Try, str]:
        """What those came to that ended: an exit code, or why they are lost."""
        listed = (
            Try(array, int(name))
            for array in {each.array for each in self._names}
            for name in os.listdir(self.arrays / array / ENDED)
            if name.isdigit()
        )
        return {each: self._read(each) for each in listed if each in self._names}

    def _read(self, each: Try) -> str:
        try:
            return (self.arrays / each.array / ENDED / str(each.number)).read_text().strip()
        except FileNotFoundError:
            return ""

    def _log(self, each: Try) -> str:
        try:
            text = (self.arrays / each.array / f"{each.number}.log").read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-5:])

    def _kept(self) -> Iterator[tuple[Try, str]]:
        """The tasks of earlier submitters that are not forgotten, with their models' names."""
        for folder in sorted(self.arrays.glob("*")):
            if folder.name.startswith(FETCH):
                shutil.rmtree(folder)
            elif not (folder / INPUT).exists():
                _close(folder)
            else:
                lines = (folder / INPUT).read_text().splitlines()
                for number, line in enumerate(lines):
                    if (folder / str(number)).exists():
                        yield Try(folder.name, number), json.loads(line)["name"]

    def _forget(self, each: Try) -> None:
        shutil.rmtree(self._place(each), ignore_errors=True)
        del self._names[each]
        self._missing.pop(each, None)
        if each.array not in {other.array for other in self._names}:
            _close(self.arrays / each.array)


def _close(folder: Path) -> None:
    """Leaves an array job's script alone."""
    # What makes the folder one to look at, and holds secrets, goes first.
    (folder / INPUT).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != slurm_array.SCRIPT:
            path.unlink()


def _config() -> dict[str, str]:
    """The cluster's (slurm.conf), as far as a line of it is a word and its value."""
    if shutil.which("sbatch") is None:
        raise EngineError(
            "there is no sbatch here: run numerai-fleet where Slurm's jobs are submitted, or install "
            "Slurm's commands (Debian's slurm-client)"
        )
    lines = _ask("scontrol", "show", "config").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _ask(*argv: str) -> str:
    """What Slurm's command prints. It may be given twice, where the answer to the first was lost."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            return done.stdout
        passing = any(words in done.stderr for words in PASSING)
        if not passing or time.monotonic() > deadline:
            raise EngineError(f"{argv[0]} fails: {done.stderr.strip()}")
        time.sleep(1)
