"""Model and data: local paths are taken as they are, everything else is downloaded.

Downloads never use numerapi's own downloader, which resumes with TLS verification switched off.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests

from numerai_predict import web
from numerai_predict.errors import DownloadFailed, UsageError
from numerai_predict.sources import is_url, looks_local

log = logging.getLogger(__name__)

TRIES = 3  # of a whole download whose body broke off
CHUNK = 1 << 20
TOURNAMENT = 8  # Numerai Classic, numerapi.NumerAPI().tournament_id

# As in numerapi.base_api.Api.download_dataset.
_DATASET_QUERY = """
query ($filename: String! $round: Int $tournament: Int) {
    dataset(filename: $filename round: $round tournament: $tournament)
}
"""


def fetch_model(model: str, output_dir: Path) -> Path:
    """The local path of a model.

    Args:
        model: a local path, or an http(s) URL, which is downloaded to `output_dir`.

    Raises:
        DownloadFailed: the URL cannot be had.
        UsageError: `output_dir` cannot be written to.
    """
    if not is_url(model):
        return Path(model)
    return download(model, output_dir / _safe_names(_url_path(model), "model.pkl")[-1])


def fetch_dataset(dataset: str, output_dir: Path) -> Path:
    """The local path of a dataset, always of the current round where it is downloaded.

    Args:
        dataset: a local path, an http(s) URL, or the name of a NumerAPI dataset such as
            `v5.2/live.parquet`, which is used where no local file has that name and is downloaded
            to that name below `output_dir`.

    Raises:
        DownloadFailed: it cannot be had.
        UsageError: the name can only be a local path and does not exist, or `output_dir` cannot
            be written to.
    """
    if is_url(dataset):
        return download(dataset, output_dir / _safe_names(_url_path(dataset), "data.parquet")[-1])
    if Path(dataset).is_file():
        return Path(dataset)
    if looks_local(dataset):
        raise UsageError(f"{dataset} does not exist")
    url = dataset_url(dataset)
    return download(url, output_dir.joinpath(*_safe_names(dataset, "data.parquet")))


def dataset_url(dataset: str) -> str:
    """Ask NumerAPI for the (presigned) address of a dataset of the current round.

    The request is numerapi's, sent by us: its own `raw_query` sets no timeout, does not retry
    broken connections and turns every failure into an empty answer.

    Args:
        dataset: its name, for example `v5.2/live.parquet`.

    Raises:
        DownloadFailed: NumerAPI cannot be reached or does not know the dataset.
    """
    # Only now: numerapi takes longer to import than local files take to read.
    from numerapi import base_api

    log.info("Asking NumerAPI for %s", dataset)
    variables = {"filename": dataset, "round": None, "tournament": TOURNAMENT}
    what = f"NumerAPI gave no address for dataset {dataset} (and there is no such local file)"
    try:
        with web.session() as http:
            response = http.post(
                base_api.API_TOURNAMENT_URL,
                json={"query": _DATASET_QUERY, "variables": variables},
                timeout=web.TIMEOUT,
            )
            if response.status_code != 200:
                raise DownloadFailed(f"{what}: {web.explain_refusal(response)}")
            answer = response.json()
    except requests.RequestException as fault:  # no JSON is one of them
        raise DownloadFailed(f"{what}: {web.explain_fault(fault)}") from None
    url: str = (answer.get("data") or {}).get("dataset") or ""
    if answer.get("errors") or not is_url(url):
        reasons = [str(error.get("message")) for error in answer.get("errors") or []]
        raise DownloadFailed(f"{what}: {'; '.join(reasons) or 'empty answer'}")
    return url


def download(url: str, target: Path) -> Path:
    """Download to a file that exists only when it is complete.

    Args:
        url: an http(s) URL; only its host and path are logged.
        target: the file to write; missing folders are made, an older file is replaced.

    Returns:
        `target`

    Raises:
        DownloadFailed: refused, unreachable or broken off after retries.
        UsageError: `target` cannot be written.
    """
    shown = web.public_part(url)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    log.info("Downloading %s to %s", shown, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for tries_left in reversed(range(TRIES)):
            try:
                _download_once(url, partial)
                break
            except requests.RequestException as fault:
                # The session has repeated what failed before the body; a broken body is ours.
                broke_off = partial.exists()
                if not (broke_off and tries_left):
                    reason = web.explain_fault(fault)
                    raise DownloadFailed(f"cannot download {shown}: {reason}") from None
                log.warning("Download broke off, starting again: %s", web.explain_fault(fault))
        os.replace(partial, target)
    except OSError as error:  # requests' exceptions are OSErrors too, but none arrives here
        raise UsageError(f"cannot write {target}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    log.debug("%s has %d bytes", target, target.stat().st_size)
    return target


def _download_once(url: str, partial: Path) -> None:
    with web.session() as http, http.get(url, stream=True, timeout=web.TIMEOUT) as response:
        if response.status_code != 200:
            refusal = web.explain_refusal(response)
            raise DownloadFailed(f"cannot download {web.public_part(url)}: {refusal}")
        with partial.open("wb") as file:
            # iter_content undoes Content-Encoding, and urllib3 raises where fewer bytes come
            # than Content-Length announced.
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)


def _url_path(url: str) -> str:
    return unquote(urlsplit(url).path)


def _safe_names(path: str, default: str) -> list[str]:
    """The parts of a foreign path as harmless file names: no folders up, no hidden files."""
    names = [re.sub(r"[^A-Za-z0-9._-]", "_", part).lstrip(".")[-100:] for part in path.split("/")]
    return [name for name in names if name] or [default]
