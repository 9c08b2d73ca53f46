"""The launcher's hold on the worker: starts it, hears it, limits it, and ends it.

Whatever way the worker goes, waiting for its next message ends: with the message, or with a
`PredictError` that says what happened to it.
"""

from __future__ import annotations

import logging
import os
import resource
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numerai_predict import errors, processes
from numerai_predict.channel import CHUNK, TOKEN, Channel, Message, Violation
from numerai_predict.limits import ContainerMemory, Limits, disk_use, format_bytes
from numerai_predict.output import Output, printable
from numerai_predict.sandbox import SHARED_MEMORY, Confinement
from numerai_predict.spawn import Spawned

log = logging.getLogger(__name__)

TICK = 0.05  # seconds between two looks at limits
LONGEST_FILE = 512 << 20  # bytes
LONGEST_TEXT = 16 << 20  # bytes of ids or predictions, beside 200 for every live row
CLOSING = 2.0  # seconds from a closed channel to the end of the process
ORDERLY_EXIT = 5.0  # seconds for a worker with children to end them

# A process may reserve more than it uses, such as Arrow's 1 GB; what is used is measured.
SPARE_ALLOCATION = 2 << 30

_FOLDERS = (os.environ.get("TMPDIR", ""), "/tmp", "/dev/shm")


class Supervisor:
    """One worker.

    Args:
        spawned: its interpreter.
        limits: what its processes may take.
        on_tick: called while waiting for the worker; what it raises ends the wait.
    """

    def __init__(self, spawned: Spawned, limits: Limits, on_tick: Callable[[], None]) -> None:
        self.limits = limits
        self._spawned = spawned
        self.peak_memory = 0  # bytes, of all its processes together
        self.loading = False  # whether the model's code may have run
        self._activity = "loading the model"
        self._on_tick = on_tick
        self._container = ContainerMemory()
        self._deadline: float | None = None
        self._next_look = 0.0
        self._sending = threading.Lock()

    def start(self) -> None:
        """Take the worker over, which then waits for `confine`."""
        processes.adopt_orphans()
        self._process = self._spawned.process
        user = self._spawned.user
        self._user = os.getuid() if user is None else user
        self._folder = _private_folder(user)
        self._disk_before = self._disk_use()
        self._output = Output(self._spawned.output, self.limits.output, self._too_much_output)
        self._output.start()
        self._channel = Channel(self._spawned.socket, os.urandom(TOKEN))
        with suppress(OSError):  # as in `send`
            self._channel.open()

    def confine(self, **order: Any) -> None:
        """Have the worker confine itself; `order` goes along.

        After the launcher's threads have started: a signal to one of them would reach it, too.
        """
        self.send("confine", confinement=self._confinement()._asdict(), **order)

    def _confinement(self) -> Confinement:
        memory = self.limits.memory
        return Confinement(
            launcher=os.getpid(),
            threads=[int(task) for task in os.listdir("/proc/self/task")],
            started_as_root=os.geteuid() == 0,
            folder=self._folder,
            memory=None if memory is None else memory + SPARE_ALLOCATION,
            # The kernel counts all that the user has, not only what the worker starts.
            processes=self.limits.processes + processes.threads_of(self._user),
            file_size=LONGEST_FILE,
            cpus=self.limits.cpus,
        )

    def send(self, kind: str, fd: int | None = None, **fields: Any) -> None:
        """Send an order, with an open file if `fd` is given; from any thread."""
        with self._sending, suppress(OSError):  # it is gone: whoever waits for it learns why
            self._channel.send(kind, fd, **fields)

    def start_clock(self) -> None:
        """From now on the model's code runs: trust nothing, and count its time."""
        self.loading = True
        if self.limits.seconds is not None:
            self._deadline = time.monotonic() + self.limits.seconds

    def stop_clock(self) -> None:
        self._deadline = None

    def expect(self, kind: str, blame: tuple[type[errors.PredictError], ...] = ()) -> Message:
        """The worker's next message, which must be of this kind.

        Args:
            blame: failures that are believed beside the model's own.

        Raises:
            PredictError: the worker failed, broke a limit, crashed or sent something else.
        """
        self._wait()
        try:
            message = self._channel.receive()
        except Violation:
            raise self._forged() from None
        if message is None:
            raise self._ended()
        if message.kind == "failure":
            raise self._failure(message, blame)
        if message.kind != kind:
            raise self._forged()
        if kind == "predicting":
            self._activity = "predicting"
        return message

    def expect_text(self, kind: str, rows: int = 0) -> bytes:
        """A text that the worker sends, of as many bytes as are plausible for so many rows.

        Raises:
            PredictError: as `expect`; LimitExceeded where it is longer.
        """
        size = self.expect(kind).fields.get("size")
        if not isinstance(size, int) or size < 0:
            raise self._forged()
        if size > LONGEST_TEXT + 200 * rows:
            raise errors.LimitExceeded(f"the model returned {format_bytes(size)} of predictions")
        text = bytearray()
        while len(text) < size:
            self._wait()
            try:
                chunk = self._channel.receive_chunk()
            except (Violation, OSError):
                raise self._forged() from None
            if len(chunk) != min(CHUNK, size - len(text)):
                raise self._forged()
            text += chunk
        return bytes(text)

    def _wait(self) -> None:
        """Until there is something to receive; meanwhile, watch."""
        while True:
            ready = self._readable(TICK)
            # Also while it sends, else a worker that never pauses would have no limits.
            if time.monotonic() >= self._next_look:
                self._on_tick()
                self._check_limits()
                self._next_look = time.monotonic() + TICK
            if ready:
                return
            if self._exited() and not self._readable(0):
                raise self._ended()

    def _readable(self, seconds: float) -> bool:
        return bool(select.select([self._channel.socket], [], [], seconds)[0])

    def _exited(self) -> bool:
        # Its status stays there for `_ended`.
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, how) is not None

    def _check_limits(self) -> None:
        if not self.loading:
            return
        group = processes.group(self._process.pid)
        # Root is free of the kernel's own limit.
        if len(group) > self.limits.processes:
            raise errors.LimitExceeded(
                f"the model started more than {self.limits.processes} processes"
            )
        used = processes.memory(group)
        self.peak_memory = max(self.peak_memory, used)
        if self.limits.memory is not None and used > self.limits.memory:
            raise self._out_of_memory()
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise errors.LimitExceeded(
                f"out of time: the model was still {self._activity} after "
                f"{self.limits.seconds:g} seconds, the limit. Try a smaller model, or a longer "
                "--timeout to see how long it takes",
                self._output.tail(),
            )
        disk = self._disk_use() - self._disk_before
        if disk > self.limits.disk:
            raise errors.LimitExceeded(
                f"the model wrote {format_bytes(disk)} of files, more than the "
                f"{format_bytes(self.limits.disk)} that it may"
            )
        if self._output.exceeded:
            raise errors.LimitExceeded(self._too_long_output())

    def _disk_use(self) -> int:
        """Bytes in the only folders that the worker can write to."""
        return sum(
            disk_use(folder, self._user) for folder in {self._folder, SHARED_MEMORY} if folder
        )

    def _too_much_output(self) -> None:
        processes.kill_group(self._process.pid)

    def _too_long_output(self) -> str:
        return f"the model printed more than {format_bytes(self.limits.output)}"

    def _out_of_memory(self, how: str = "", details: str = "") -> errors.LimitExceeded:
        limit = self.limits.memory or self._container.limit
        return errors.LimitExceeded(
            f"out of memory while {self._activity}{how}: the model's processes held "
            f"{format_bytes(self.peak_memory)} when last seen, the limit is "
            f"{format_bytes(limit) if limit else 'what the machine has'}. Try fewer features, "
            "float32 instead of float64, smaller batches or fewer processes",
            details,
        )

    def _forged(self) -> errors.PredictError:
        if not self.loading:
            return errors.InternalError("the worker did not keep to the protocol")
        return errors.ModelError(
            "the model wrote to the channel by which its result is returned; a model must return "
            "its predictions",
            self._output.tail(),
        )

    def _failure(
        self, message: Message, blame: tuple[type[errors.PredictError], ...]
    ) -> errors.PredictError:
        name, text, details = (
            printable(str(message.fields.get(key, ""))) for key in ("name", "message", "details")
        )
        kind = errors.BY_NAME.get(name, errors.InternalError)
        if self.loading and kind not in (*errors.MODELS_OWN, *blame):
            return self._forged()
        if kind is errors.LimitExceeded or self._container.killed():
            return self._out_of_memory(f" ({text})" if text else "", details)
        return kind(text, details)

    def _ended(self) -> errors.PredictError:
        """What it means that the worker is gone before it was done."""
        try:
            status = self._process.wait(CLOSING)
        except subprocess.TimeoutExpired:
            return self._forged()  # it lives, and closed the channel
        tail = self._output.finish()
        if self._output.exceeded:
            return errors.LimitExceeded(self._too_long_output(), tail)
        if status == -signal.SIGXFSZ:
            longest = format_bytes(LONGEST_FILE)
            return errors.LimitExceeded(f"the model wrote a file of more than {longest}", tail)
        if self._container.killed():
            return self._out_of_memory(" (the kernel ended it)", tail)
        if status < 0 and ("bad_alloc" in tail or "MemoryError" in tail):
            return self._out_of_memory(details=tail)
        if not self.loading:
            return errors.InternalError(
                f"the worker ended before the model (status {status})", tail
            )
        if status >= 0:
            return errors.ModelError(
                f"the model ended the process itself, with exit code {status}; it must return "
                "its predictions",
                tail,
            )
        return errors.Crashed(_explain_signal(-status), tail)

    def finish(self) -> None:
        """After the worker's last message: leave no process behind.

        Raises:
            ModelError: the model started processes that do not end with it.
        """
        if self._others():
            self.send("leave")
            deadline = time.monotonic() + ORDERLY_EXIT
            while self._others() and time.monotonic() < deadline:
                time.sleep(TICK)
            if others := self._others():
                raise errors.ModelError(
                    f"the model started {len(others)} process(es) that did not end; wait for them "
                    "before you return"
                )

    def _others(self) -> list[int]:
        return [pid for pid in processes.group(self._process.pid) if pid != self._process.pid]

    def stop(self) -> None:
        """End all that is left of the worker, and remove its folder. Can be called at any time."""
        if not hasattr(self, "_process"):
            self._spawned.discard()
            return
        if not processes.end(self._process.pid):
            log.error("some of the model's processes could not be ended")
        self._process.returncode = 0  # reaped
        self._output.finish()
        self._channel.socket.close()
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.peak_memory = max(self.peak_memory, usage.ru_maxrss << 10)
        if self._folder:
            _remove(self._folder)


def _private_folder(user: int | None) -> str:
    """A new folder that only the worker's user writes to; "" where nothing can be written."""
    for parent in filter(None, _FOLDERS):
        folder = os.path.join(parent, f"numerai_predict-{os.urandom(6).hex()}")
        try:
            os.mkdir(folder, 0o700)
        except OSError:
            continue
        if user is not None:
            try:
                os.chown(folder, user, user)
            except PermissionError:
                os.chmod(folder, 0o777)  # whoever guesses its name
        return folder
    return ""


def _remove(folder: str) -> None:
    """Remove a folder and whatever a model made in it, be it closed or deeper than a path is long."""
    try:
        while entries := _opened(folder):
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                for inner in _opened(entry.path):
                    os.rename(inner.path, os.path.join(folder, os.urandom(8).hex()))
                os.rmdir(entry.path)
        os.rmdir(folder)
    except OSError as error:
        log.warning("%s stays: %s", folder, error)


def _opened(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder; folders in it can be read and changed from now on."""
    entries = list(os.scandir(folder))
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, 0o700)
    return entries


def _explain_signal(number: int) -> str:
    name = signal.Signals(number).name if number in signal.valid_signals() else str(number)
    meanings: dict[int, str] = {
        signal.SIGSEGV: "it accessed memory that is not its own: a library that does not fit the "
        "pickle, or recursion that is too deep",
        signal.SIGABRT: "a library gave up",
        signal.SIGSYS: "it made a forbidden system call, such as signalling its supervisor",
        signal.SIGKILL: "it killed itself, or the machine ran out of memory",
    }
    meaning = f": {meanings[number]}" if number in meanings else ""
    return f"the model's process was killed by {name}{meaning}"
