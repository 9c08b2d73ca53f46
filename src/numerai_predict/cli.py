"""The command line: flags, log, exit code.

Imports nothing heavy, so that `--help` and usage errors answer at once; the work is in
`pipeline.py`.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from urllib.parse import parse_qsl

from numerai_predict import __version__, errors
from numerai_predict.sources import is_url, looks_local

log = logging.getLogger(__name__)

DEFAULT_DATASET = "v5.2/live.parquet"
DEFAULT_BENCHMARKS = "v5.2/live_benchmark_models.parquet"


def main(argv: list[str] | None = None) -> int:
    """Run the predictor.

    Args:
        argv: the arguments; the process's own when None.

    Returns:
        The exit code (see `errors.py`).

    Raises:
        SystemExit: with 2 for usage errors, with 0 after `--help` and `--version` (argparse).
    """
    args = parse_args(argv)
    set_up_log(args.debug)
    try:
        # Only now: it imports pandas.
        from numerai_predict import pipeline

        pipeline.run(args)
        return errors.OK
    except errors.PredictError as error:
        report(error, args.debug)
        return error.code
    except Exception:
        log.exception("internal_error: this is a fault of numerai_predict, not of your model")
        return errors.INTERNAL_ERROR


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags, checked: what can be known to fail later, fails here with exit code 2.

    Returns:
        A namespace with `model` (str, path or URL), `dataset` and `benchmarks` (str), `output_dir`
        (Path), `post_url` (str or None), `post_data` (list of (field, value), empty without
        `post_url`) and `debug` (bool).

    Raises:
        SystemExit: with 2 for usage errors.
    """
    parser = _parser()
    args = parser.parse_args(argv)

    if bool(args.post_url) != bool(args.post_data):
        given, missing = ("url", "data") if args.post_url else ("data", "url")
        parser.error(f"--post_{given} needs --post_{missing} as well: an upload takes both")
    if args.post_url and not is_url(args.post_url):
        parser.error("--post_url must begin with http:// or https:// and name a host")
    try:
        # strict: a field lost to a typo would surface only as a refused upload at the very end.
        args.post_data = parse_qsl(
            args.post_data or "", keep_blank_values=True, strict_parsing=bool(args.post_data)
        )
    except ValueError:
        parser.error("--post_data must be a url-encoded query string: name=value&name=value…")

    _check_model(parser, args.model)
    for flag in ("dataset", "benchmarks"):
        source = getattr(args, flag)
        if looks_local(source) and not Path(source).is_file():
            parser.error(_missing(f"--{flag}", source))
    _check_output_dir(parser, args.output_dir)
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="numerai_predict",
        description="Runs a pickled Numerai model on live data and writes its predictions.",
        epilog="Example: numerai_predict --debug --model model.pkl --output_dir .",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="FILE|URL",
        help="pickled model: a local file or an http(s) URL, for example a presigned S3 GET "
        "(required)",
    )
    parser.add_argument(
        "--dataset",
        default=DEFAULT_DATASET,
        metavar="FILE|NAME",
        help="live data: a local parquet file, an http(s) URL or the name of a NumerAPI dataset "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--benchmarks",
        default=DEFAULT_BENCHMARKS,
        metavar="FILE|NAME",
        help="benchmark models, in the same forms; read only if the model takes a second argument "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--output_dir",
        default="/tmp",
        type=Path,
        metavar="DIR",
        help="folder for downloads and for live_predictions-*.csv (default: %(default)s)",
    )
    parser.add_argument(
        "--post_url",
        metavar="URL",
        help="presigned S3 POST address to upload the predictions to; needs --post_data "
        "(default: no upload)",
    )
    parser.add_argument(
        "--post_data",
        metavar="FIELDS",
        help="the form fields of that POST as a url-encoded query string; needs --post_url "
        "(default: none)",
    )
    parser.add_argument(
        "--debug",
        action="store_true",
        help="log at DEBUG level and show full tracebacks (default: off)",
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"%(prog)s {__version__} (Python {sys.version.split()[0]})",
    )
    return parser


def _check_model(parser: argparse.ArgumentParser, model: str) -> None:
    if is_url(model):
        return
    # Never echo what may be a URL: its query string can be a secret.
    if "://" in model:
        parser.error("--model must be a local file or an http(s) URL; presign s3:// addresses")
    path = Path(model)
    if not path.exists():
        parser.error(_missing("--model", model))
    if not path.is_file():
        parser.error(f"--model {model} is not a file")
    if not os.access(path, os.R_OK):
        parser.error(f"--model {model} is not readable for uid {os.getuid()}")


def _check_output_dir(parser: argparse.ArgumentParser, folder: Path) -> None:
    if not folder.exists():
        parser.error(_missing("--output_dir", str(folder)))
    if not folder.is_dir():
        parser.error(f"--output_dir {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        parser.error(f"--output_dir {folder} is not writable for uid {os.getuid()}")


def _missing(flag: str, path: str) -> str:
    return (
        f"{flag} {path} does not exist. In a container only mounted folders can be seen: "
        'docker run -v "$PWD:$PWD" … with an absolute path such as $PWD/model.pkl'
    )


def set_up_log(debug: bool) -> None:
    """Log to standard error with the time; our own DEBUG lines only with `debug`."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, force=True
    )
    logging.getLogger("numerai_predict").setLevel(logging.DEBUG if debug else logging.INFO)
    # Library warnings (scikit-learn's "trying to unpickle estimator from version …") with a time.
    logging.captureWarnings(True)
    # urllib3 logs whole request paths, even when it merely repeats one: presigned query strings.
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)


def report(error: errors.PredictError, debug: bool) -> None:
    """Log a failure: its name and message, its details, and how to look into it locally."""
    if debug:
        log.error("%s: %s", error.name, error, exc_info=error)
    else:
        details = f"\n{error.details}" if error.details else ""
        log.error("%s: %s%s", error.name, error, details)
    if not isinstance(error, errors.UsageError):
        image = f"numerai_predict_py_{sys.version_info.major}_{sys.version_info.minor}"
        log.info(
            "Debug your model locally:\n\n"
            '    docker run -i --rm -v "$PWD:$PWD" %s --debug --model $PWD/model.pkl\n',
            image,
        )
