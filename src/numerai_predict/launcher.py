"""One run from the model's address to the predictions file: the steps in their order."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from numerai_predict import errors
from numerai_predict.inputs import Input
from numerai_predict.limits import Limits
from numerai_predict.sources import is_url
from numerai_predict.spawn import Spawned
from numerai_predict.supervisor import Supervisor

log = logging.getLogger(__name__)


class Options(NamedTuple):
    """What to do; see the flags of the same names (cli.py).

    Args:
        model, dataset, benchmarks: local path, http(s) URL or, for data, a NumerAPI name.
        post_data: form fields; secrets, like the URLs' query strings.
    """

    model: str
    dataset: str
    benchmarks: str
    output_dir: Path
    cache_dir: Path | None = None
    post_url: str | None = None
    post_data: tuple[tuple[str, str], ...] = ()
    limits: Limits = Limits()
    require_sandbox: bool = False
    inspect: bool = False
    fetch: bool = False
    debug: bool = False


class Outcome:
    """What is known of a run, even of one that failed.

    Attributes:
        entry: what a manifest calls the model; None without one.
        phases: seconds by name.
        peak_memory: bytes.
        inspection: what the pickle holds (inspection.Inspection.to_json).
        protections: each with "" where it is in force, else with the reason.
        rows: predictions written.
        output: the file they are in.
    """

    def __init__(self) -> None:
        self.entry: str | None = None
        self.phases: dict[str, float] = {}
        self.peak_memory = 0
        self.inspection: dict[str, Any] = {}
        self.protections: dict[str, str] = {}
        self.rows = 0
        self.output: Path | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the seconds in here, also when they end with an error."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0) + time.monotonic() - started


class Run:
    """One run.

    Args:
        options: what to do.
        spawned: the worker's interpreter.
        outcome: filled in on the way.
    """

    def __init__(self, options: Options, spawned: Spawned, outcome: Outcome) -> None:
        self.options = options
        self.outcome = outcome
        self.worker = Supervisor(spawned, options.limits, self._check_inputs)
        self.inputs = {
            kind: Input(kind, source, self._fetch(kind), self._give)
            for kind, source in [
                ("model", options.model),
                ("dataset", options.dataset),
                ("benchmarks", options.benchmarks),
            ]
        }
        # A model of one argument does not care whether there are benchmarks.
        self._needed = ["model", "dataset"]
        if options.inspect:
            self._needed = ["model"]

    def inspect(self) -> None:
        """Look into the pickle, without loading it.

        Raises:
            PredictError: it cannot be had, or is for another environment.
        """
        try:
            self._start_worker()
            self._receive_inspection()
            self.worker.expect("done")
        finally:
            self._stop_worker()

    def predict(self) -> None:
        """Fetch, predict, check, write and, if asked, upload.

        Raises:
            PredictError: whichever step failed says how.
        """
        from numerai_predict import validation

        try:
            self._start_worker()
            ids, text = self._ask_model()
        finally:
            self._stop_worker()
        with self.outcome.phase("validate"):
            predictions = validation.check(text, ids)
            csv = predictions.to_csv().encode()
        self.outcome.rows = len(predictions.ids)
        self.outcome.output = self._write(csv)
        if self.options.post_url:
            from numerai_predict import transfer

            with self.outcome.phase("upload"):
                transfer.upload(
                    self.outcome.output, self.options.post_url, list(self.options.post_data)
                )

    def _start_worker(self) -> None:
        with self.outcome.phase("start"):
            self.worker.start()
            for kind, input in self.inputs.items():
                if kind == "model" or not self.options.inspect:
                    input.start()
            self.worker.confine(inspect=self.options.inspect, debug=self.options.debug)
            self.outcome.protections.update(self.worker.expect("confined").fields["protections"])
            missing = _report(self.outcome.protections)
            if missing and self.options.require_sandbox:
                raise errors.UsageError(
                    f"--require-sandbox: not in force here: {missing}. Start the container as root "
                    "with Docker's usual capabilities, or as another user (--user 1000)"
                )
            if not self.options.inspect:
                self.worker.expect("ready")

    def _ask_model(self) -> tuple[list[str], bytes]:
        """The live ids, and what the model makes of them: CSV that nobody has checked yet."""
        worker, outcome = self.worker, self.outcome
        try:
            ids = worker.expect_text("ids").decode().split("\n")
        except errors.UnreadableData as error:
            raise self.inputs["dataset"].unreadable(str(error)) from None
        self._receive_inspection()
        with outcome.phase("load"):
            worker.expect("loading")
            worker.start_clock()
            log.info("Loading model %s", self.inputs["model"].path)
            arguments = worker.expect("loaded").fields["arguments"]
            log.debug("The model takes %s argument(s)", arguments)
            self._await_predicting(arguments)
        log.info("Predicting on %d rows", len(ids))
        with outcome.phase("predict"):
            text = worker.expect_text("predictions", rows=len(ids))
            worker.expect("done")
        worker.stop_clock()
        worker.finish()
        return ids, text

    def _await_predicting(self, arguments: int) -> None:
        if arguments == 1:
            self.worker.expect("predicting")
            return
        benchmarks = self.inputs["benchmarks"]
        self._needed.append("benchmarks")
        try:
            self.worker.expect("predicting", blame=(errors.UsageError, errors.UnreadableData))
        except errors.UnreadableData as error:
            # The model's code runs by now, and may only say so.
            if benchmarks.is_parquet():
                raise errors.ModelError(
                    f"the benchmark models could not be read: {error}"
                ) from None
            raise benchmarks.unreadable(str(error)) from None

    def _receive_inspection(self) -> None:
        self.outcome.inspection = json.loads(self.worker.expect_text("inspected"))

    def _stop_worker(self) -> None:
        self.worker.stop()
        self.outcome.peak_memory = self.worker.peak_memory
        if downloads := [input.seconds for input in self.inputs.values() if not input.is_local]:
            self.outcome.phases["download"] = max(downloads)

    def _fetch(self, kind: str) -> Callable[[str], Path]:
        """How to get what is not local; imported only when something is to be fetched."""

        def fetch(source: str) -> Path:
            from numerai_predict import datasets

            folder = self.options.output_dir
            sources = [input.source for input in self.inputs.values()]
            names = [datasets.file_name(url) for url in sources if is_url(url)]
            if is_url(source) and names.count(datasets.file_name(source)) > 1:
                folder /= kind
            if kind == "model":
                return datasets.fetch_model(source, folder)
            return datasets.fetch_dataset(source, folder, self.options.cache_dir)

        return fetch

    def _give(self, kind: str, fd: int, name: str) -> None:
        self.worker.send(kind, fd, name=name)

    def _check_inputs(self) -> None:
        for kind in self._needed:
            self.inputs[kind].check()

    def _write(self, csv: bytes) -> Path:
        path = self.options.output_dir / f"live_predictions-{os.urandom(6).hex()}.csv"
        try:
            with open(path, "xb") as file:
                file.write(csv)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise errors.UsageError(f"cannot write {path}: {error.strerror}") from error
        first = csv.decode().split("\n")[:6]
        log.info("Wrote %d predictions to %s\n%s", self.outcome.rows, path, "\n".join(first))
        return path


def _report(protections: dict[str, str]) -> str:
    """Say which protections are in force. Returns those that are not, as text."""
    in_force = [name for name, reason in protections.items() if not reason]
    missing = "; ".join(f"{name} ({reason})" for name, reason in protections.items() if reason)
    log.debug("In force around the model: %s", ", ".join(in_force))
    if missing:
        log.warning("Not in force around the model: %s", missing)
    return missing
