"""One run from the model's address to the predictions file: the steps in their order."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from numerai_predict import __version__, errors, fetch, live_data, model, predictions, upload

log = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> Path:
    """Fetch, predict, check, write and, if asked, upload.

    Args:
        args: what `cli.parse_args` returns.

    Returns:
        The predictions file.

    Raises:
        PredictError: whichever step failed says how.
    """
    release = os.getenv("GIT_REF", "")  # set in released images
    log.info("numerai_predict %s, Python %s", release or __version__, sys.version.split()[0])

    # The model first: a broken one should not cost a download, and only it knows whether it
    # wants the benchmark models.
    path = fetch.fetch_model(args.model, args.output_dir)
    log.info("Loading model %s", path)
    predict = model.load(path)
    arguments = model.count_arguments(predict)
    log.debug("%r takes %d argument(s)", predict, arguments)

    features = _read(args.dataset, args.output_dir)
    benchmarks = _read(args.benchmarks, args.output_dir) if arguments == 2 else None
    # Kept apart: the model may change its input in place.
    live_ids = features.index

    log.info("Predicting on %d rows", len(features))
    parts = [model.call(predict, *data) for data in live_data.by_era(features, benchmarks)]
    checked = predictions.check(parts, live_ids)
    csv = predictions.write(checked, args.output_dir)
    log.info("Wrote %d predictions to %s\n%s", len(checked), csv, checked.head())

    if args.post_url:
        upload.upload(csv, args.post_url, args.post_data)
    return csv


def _read(source: str, output_dir: Path):
    path = fetch.fetch_dataset(source, output_dir)
    downloaded = path != Path(source)
    log.info("Reading %s", path)
    try:
        return live_data.read(path)
    except live_data.Unreadable as error:
        blame = errors.DownloadFailed if downloaded else errors.UsageError
        raise blame(str(error)) from error
