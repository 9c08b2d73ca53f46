"""The command line: flags, log, exit code.

Imports nothing heavy, so that `--help` and usage errors answer at once; the work is in
`launcher.py`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import parse_qsl, urlencode

from numerai_predict import __version__, errors, manifest, secrecy
from numerai_predict.launcher import Options, Outcome, Run
from numerai_predict.limits import PRESETS, Limits, parse_bytes, parse_seconds
from numerai_predict.sources import is_url, looks_local
from numerai_predict.spawn import Spawned

log = logging.getLogger(__name__)

DEFAULT_DATASET = "v5.2/live.parquet"
DEFAULT_BENCHMARKS = "v5.2/live_benchmark_models.parquet"

STDOUT = Path("-")

Value = TypeVar("Value")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # A secret whose flag was mistyped, or that a shell has cut in pieces, is not repeated.
        known, unrecognized, words = message.partition("unrecognized arguments: ")
        if unrecognized:
            flags = [word.partition("=")[0] for word in words.split() if word.startswith("-")]
            message = f"{known}{unrecognized}{', '.join(flags) or 'what is no flag'}"
        raise errors.UsageError(message)


def main(argv: list[str] | None = None, spawned: Spawned | None = None) -> int:
    """Run the predictor.

    Args:
        argv: the arguments; the process's own when None.
        spawned: the worker's interpreter, started here when None.

    Returns:
        The exit code (see `errors.py`).

    Raises:
        SystemExit: with 0 after `--help` and `--version` (argparse), with 143 after SIGTERM.
    """
    started = time.monotonic()
    result = _result_file(argv)
    outcome = Outcome()
    options = None
    secrets: list[str] = []
    failure: errors.PredictError | None = None
    try:
        args = _given(argv)
        outcome.entry = args.entry
        options = _options(args)
        inputs = (options.model, options.dataset, options.benchmarks)
        addresses = (*inputs, options.post_url, args.manifest)
        urls = [address for address in addresses if address and is_url(address)]
        secrets = secrecy.secrets_of(urlencode(options.post_data), *urls)
        set_up_log(options.debug, secrets)
        outcome.protections["arguments out of sight"] = secrecy.hide()
        # As a container's first process, it would not heed the signal otherwise.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        _run(options, spawned or Spawned(), outcome)
    except errors.PredictError as error:
        failure = error
        if options is None and spawned is not None:
            spawned.discard()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        text = secrecy.redact(f"{type(error).__name__}: {error}", secrets)
        failure = errors.InternalError(text)
        failure.__cause__ = error
    return _report(options, outcome, failure, result, time.monotonic() - started)


def parse_args(argv: list[str] | None = None) -> Options:
    """The flags, checked: what can be known to fail later, fails here.

    Raises:
        UsageError: they cannot be used.
        SystemExit: with 0 after `--help` and `--version`.
    """
    return _options(_given(argv))


def _given(argv: list[str] | None) -> argparse.Namespace:
    """What flags, the manifest and the environment say together, the first that says something."""
    args = _parser().parse_args(argv)
    _resolve(args, ("manifest",))
    args.entry = None
    if args.manifest:
        number = manifest.index() if args.index is None else manifest.parse_index(args.index)
        if number is None:
            raise errors.UsageError(
                "--manifest needs --index, or an engine that says which model to run: by "
                f"{', '.join((*manifest.INDICES, manifest.SLOT))}"
            )
        text = manifest.read(args.manifest, args.output_dir)
        for name, value in manifest.entry(text, number).items():
            if not getattr(args, name):
                setattr(args, name, value)
    elif args.index is not None:
        raise errors.UsageError("--index needs --manifest")
    _resolve(args, manifest.VALUES)
    return args


def _options(args: argparse.Namespace) -> Options:
    """The flags, checked."""
    if not args.model and not args.fetch:
        raise errors.UsageError("the following argument is required: --model")
    if bool(args.post_url) != bool(args.post_data):
        given, missing = ("url", "data") if args.post_url else ("data", "url")
        raise errors.UsageError(
            f"--post_{given} needs --post_{missing} as well: an upload takes both"
        )
    if args.post_url and not is_url(args.post_url):
        raise errors.UsageError("--post_url must begin with http:// or https:// and name a host")
    if args.model:
        _check_model(args.model)
    for flag in () if args.inspect else ("dataset",) if args.fetch else ("dataset", "benchmarks"):
        source = getattr(args, flag)
        if looks_local(source) and not os.path.isfile(source):
            raise errors.UsageError(_missing(f"--{flag}", source))
    _check_folder("--output_dir", args.output_dir)
    if args.cache_dir is not None:
        _check_folder("--cache_dir", args.cache_dir)
    if args.result not in (None, STDOUT):
        folder = args.result if args.entry and args.result.is_dir() else args.result.parent
        _check_folder("the folder of --result", folder.absolute())
    return Options(
        model=args.model or "",
        dataset=args.dataset,
        benchmarks=args.benchmarks,
        output_dir=args.output_dir,
        cache_dir=args.cache_dir,
        post_url=args.post_url,
        post_data=_form_fields(args.post_data or ""),
        limits=_limits(args),
        require_sandbox=args.require_sandbox,
        inspect=args.inspect,
        fetch=args.fetch,
        debug=args.debug,
    )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="numerai_predict",
        description="Runs a pickled Numerai model on live data and writes its predictions.",
        epilog="The values of --model, --dataset, --benchmarks, --post_url, --post_data and --manifest can be "
        "secret. Each is also read from a file (@FILE), from standard input (@-) or, where the "
        "flag is not given, from the environment: NUMERAI_PREDICT_MODEL, "
        "NUMERAI_PREDICT_POST_DATA and so on. "
        "Example: numerai_predict --debug --model model.pkl --output_dir .",
    )
    parser.add_argument(
        "--model",
        metavar="FILE|URL",
        help="pickled model: a local file or an http(s) URL, for example a presigned S3 GET "
        "(required)",
    )
    parser.add_argument(
        "--dataset",
        metavar="FILE|NAME",
        help="live data: a local parquet file, an http(s) URL or the name of a NumerAPI dataset "
        f"(default: {DEFAULT_DATASET})",
    )
    parser.add_argument(
        "--benchmarks",
        metavar="FILE|NAME",
        help="benchmark models, in the same forms; read only if the model takes a second argument "
        f"(default: {DEFAULT_BENCHMARKS})",
    )
    parser.add_argument(
        "--output_dir",
        default="/tmp",
        type=Path,
        metavar="DIR",
        help="folder for downloads and for live_predictions-*.csv (default: %(default)s)",
    )
    parser.add_argument(
        "--cache_dir",
        type=Path,
        metavar="DIR",
        help="folder that keeps datasets for further runs: NumerAPI's during their round, those of a URL "
        "as long as its server has no other (default: downloads are not reused)",
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
        "--manifest",
        metavar="FILE|URL|-",
        help="take model, data, upload and limits from a line of this JSON Lines file instead "
        "(default: none)",
    )
    parser.add_argument(
        "--index",
        metavar="N",
        help="which line of --manifest, from 0 on (default: as Kubernetes, AWS Batch, Slurm or Swarm "
        "say in the environment)",
    )
    parser.add_argument(
        "--limits",
        choices=list(PRESETS),
        help="what the model may take: numerai is 1 CPU, 4 GB and 10 minutes, as on Numerai's own "
        "runner (default: none)",
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="memory that the model's processes may take together, such as 3GB "
        "(default: as --limits)",
    )
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        help="time that the model may take to load and predict: seconds, or 10m "
        "(default: as --limits)",
    )
    parser.add_argument(
        "--result",
        type=Path,
        metavar="FILE|DIR|-",
        help="write how the run ended as JSON, also when it fails: to a file, with --manifest to "
        "NAME.json in a folder, or to standard output (default: none)",
    )
    parser.add_argument(
        "--inspect",
        action="store_true",
        help="only show what the pickle needs, without loading it: Python version, modules, "
        "libraries (default: off)",
    )
    parser.add_argument(
        "--fetch",
        action="store_true",
        help="only download --dataset to --output_dir; no model is needed (default: off)",
    )
    parser.add_argument(
        "--require-sandbox",
        "--require_sandbox",
        action="store_true",
        help="refuse to run a model unless every protection around it is in force (default: off)",
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


def _resolve(args: argparse.Namespace, flags: Sequence[str]) -> None:
    """Fill in what is given by environment, file or standard input, and the defaults."""
    defaults = {"dataset": DEFAULT_DATASET, "benchmarks": DEFAULT_BENCHMARKS}
    given = {flag: getattr(args, flag) or secrecy.environment_value(flag) for flag in flags}
    if [*given.values(), "@-" if args.manifest == "-" else ""].count("@-") > 1:
        raise errors.UsageError("only one flag can be read from standard input (@-)")
    for flag, value in given.items():
        try:
            setattr(args, flag, secrecy.resolve(value) if value else defaults.get(flag))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise errors.UsageError(f"--{flag} {value} cannot be read: {reason}") from None


def _form_fields(text: str) -> tuple[tuple[str, str], ...]:
    try:
        # strict: a field lost to a typo would surface only as a refused upload at the very end.
        return tuple(parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text)))
    except ValueError:
        raise errors.UsageError(
            "--post_data must be a url-encoded query string: name=value&name=value…"
        ) from None


def _limits(args: argparse.Namespace) -> Limits:
    name = args.limits or "none"
    if name not in PRESETS:
        raise errors.UsageError(f"argument --limits: choose from {', '.join(PRESETS)}")
    limits = PRESETS[name]
    if args.memory is not None:
        limits = limits._replace(memory=_parsed("memory", args.memory, parse_bytes))
    if args.timeout is not None:
        limits = limits._replace(seconds=_parsed("timeout", args.timeout, parse_seconds))
    return limits


def _parsed(flag: str, text: str, parse: Callable[[str], Value]) -> Value:
    try:
        return parse(str(text))
    except ValueError as error:
        raise errors.UsageError(f"argument --{flag}: {error}") from None


def _check_model(model: str) -> None:
    if is_url(model):
        return
    # Never echo what may be a URL: its query string can be a secret.
    if "://" in model:
        raise errors.UsageError(
            "--model must be a local file or an http(s) URL; presign s3:// addresses"
        )
    path = Path(model)
    if not os.path.exists(path):  # unlike Path's, it does not raise in a closed folder
        raise errors.UsageError(_missing("--model", model))
    if not os.path.isfile(path):
        raise errors.UsageError(f"--model {model} is not a file")
    if not os.access(path, os.R_OK):
        raise errors.UsageError(f"--model {model} is not readable for uid {os.getuid()}")


def _check_folder(what: str, folder: Path) -> None:
    if not os.path.exists(folder):
        raise errors.UsageError(_missing(what, str(folder)))
    if not os.path.isdir(folder):
        raise errors.UsageError(f"{what} {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise errors.UsageError(f"{what} {folder} is not writable for uid {os.getuid()}")


def _missing(flag: str, path: str) -> str:
    return (
        f"{flag} {path} does not exist. In a container only mounted folders can be seen: "
        'docker run -v "$PWD:$PWD" … with an absolute path such as $PWD/model.pkl'
    )


def _result_file(argv: list[str] | None) -> Path | None:
    """Where --result points, even if the other flags are unusable."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--result", type=Path)
    try:
        return parser.parse_known_args(argv)[0].result
    except argparse.ArgumentError:
        return None


class _Formatter(logging.Formatter):
    """Leaves secrets out, whoever logs them, and indents a record's further lines: those of a model's
    making cannot pass for records."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self.secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        text = secrecy.redact(super().format(record), self.secrets)
        first, *more = text.split("\n")
        return "\n".join([first, *(f"    {line}" if line else "" for line in more)])


def set_up_log(debug: bool, secrets: Sequence[str] = ()) -> None:
    """Log to standard error with the time; our own DEBUG lines only with `debug`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(secrets))
    logging.basicConfig(handlers=[handler], force=True)
    logging.getLogger("numerai_predict").setLevel(logging.DEBUG if debug else logging.INFO)
    # urllib3 logs whole request paths, even when it merely repeats one: presigned query strings.
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)


def _run(options: Options, spawned: Spawned, outcome: Outcome) -> None:
    from numerai_predict import report

    log.info("numerai_predict %s, Python %s", report.release(), sys.version.split()[0])
    if options.fetch:
        from numerai_predict import datasets

        spawned.discard()
        outcome.output = datasets.fetch_dataset(
            options.dataset, options.output_dir, options.cache_dir
        )
        log.info("The data is in %s", outcome.output)
        return
    run = Run(options, spawned, outcome)
    if options.inspect:
        run.inspect()
    else:
        run.predict()


def _report(
    options: Options | None,
    outcome: Outcome,
    failure: errors.PredictError | None,
    result: Path | None,
    seconds: float,
) -> int:
    """Tell how it ended, in the log and in --result. Returns the exit code."""
    from numerai_predict import report

    if options is None:
        assert failure is not None, "flags that cannot be used are a failure"
        print(f"{_parser().format_usage()}numerai_predict: error: {failure}", file=sys.stderr)
    elif outcome.inspection and options.inspect:
        print(outcome.inspection["table"])
    if options and failure:
        report.report_failure(failure, options.debug)
        if not isinstance(failure, errors.UsageError) and options.model and not options.inspect:
            report.suggest_debugging(options)
    elif options and options.model and not options.inspect:
        report.summarize(options, outcome, seconds)
    if result is not None:
        told = report.result(failure, outcome, options.limits.memory if options else None)
        if result == STDOUT:
            print(json.dumps(told))
            return told["code"]
        if outcome.entry and result.is_dir():
            result /= f"{outcome.entry}.json"
        try:
            report.write(result, told)
        except errors.UsageError as error:
            print(f"numerai_predict: error: {error}", file=sys.stderr)
            return failure.code if failure else error.code
    return failure.code if failure else errors.OK
