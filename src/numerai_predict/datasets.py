"""Where model and data come from: local paths are taken as they are, all else is downloaded."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from numerai_predict import cache, transfer
from numerai_predict.errors import DownloadFailed, UsageError
from numerai_predict.sources import is_url, looks_local

log = logging.getLogger(__name__)

API_URL = "https://api-tournament.numer.ai"  # NUMERAI_API_URL says otherwise
TOURNAMENT = 8  # Numerai Classic, numerapi.NumerAPI().tournament_id

# As in numerapi's download_dataset and get_current_round.
_DATASET_QUERY = """
query ($filename: String! $round: Int $tournament: Int) {
    dataset(filename: $filename round: $round tournament: $tournament)
}
"""
_ROUND_QUERY = """
query ($tournament: Int!) {
    rounds(tournament: $tournament number: 0) { number }
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
    return transfer.download(model, output_dir / file_name(model, "model.pkl"), what="model")


def fetch_dataset(dataset: str, output_dir: Path, cache_dir: Path | None = None) -> Path:
    """The local path of a dataset, always of the current round where NumerAPI gives it.

    Args:
        dataset: a local path, an http(s) URL, or the name of a NumerAPI dataset such as
            `v5.2/live.parquet`, which is used where no local file has that name.
        output_dir: where downloads go; a NumerAPI dataset to its name below it.
        cache_dir: where datasets go instead, to be used again: NumerAPI's during their round, those
            of a URL as long as its server says that it has no other.

    Raises:
        DownloadFailed: it cannot be had.
        UsageError: the name can only be a local path and does not exist, or a folder cannot be
            written to.
    """
    if is_url(dataset):
        return _fetch_url(dataset, output_dir, cache_dir)
    if Path(dataset).is_file():
        return Path(dataset)
    if looks_local(dataset):
        raise UsageError(f"{dataset} does not exist")
    name = "/".join(_safe_names(dataset, "data.parquet"))

    def fetch(target: Path) -> Path:
        return transfer.download(dataset_url(dataset), target, what=dataset)

    if cache_dir is not None:
        try:
            number = current_round()
        except DownloadFailed as error:
            log.warning("Not using the cache, the current round is not known: %s", error)
        else:
            return cache.get(cache_dir, number, name, fetch)
    return fetch(output_dir / name)


def _fetch_url(url: str, output_dir: Path, cache_dir: Path | None) -> Path:
    name = file_name(url)
    if cache_dir is None:
        return transfer.download(url, output_dir / name, what=name)

    def refresh(target: Path, validator: str) -> str:
        return transfer.refresh(url, target, validator, what=name)

    # A presigned address has a new query every time.
    return cache.get_current(cache_dir, url.partition("?")[0], name, refresh)


def dataset_url(dataset: str) -> str:
    """Ask NumerAPI for the (presigned) address of a dataset of the current round.

    Args:
        dataset: its name, for example `v5.2/live.parquet`.

    Raises:
        DownloadFailed: NumerAPI cannot be reached or does not know the dataset.
    """
    what = f"NumerAPI gave no address for dataset {dataset} (and there is no such local file)"
    variables: dict[str, object] = {"filename": dataset, "round": None, "tournament": TOURNAMENT}
    url = _ask(_DATASET_QUERY, variables, what).get("dataset")
    if not (isinstance(url, str) and is_url(url)):
        raise DownloadFailed(f"{what}: empty answer")
    return url


def current_round() -> int:
    """Ask NumerAPI for the number of the current round.

    Raises:
        DownloadFailed: NumerAPI cannot be reached or does not say.
    """
    what = "NumerAPI gave no current round"
    rounds = _ask(_ROUND_QUERY, {"tournament": TOURNAMENT}, what).get("rounds")
    try:
        return int(rounds[0]["number"])  # type: ignore[index]
    except (IndexError, KeyError, TypeError, ValueError):
        raise DownloadFailed(f"{what}: empty answer") from None


def _ask(query: str, variables: dict[str, object], what: str) -> dict[str, Any]:
    """The `data` of a GraphQL answer."""
    url = os.getenv("NUMERAI_API_URL") or API_URL
    answer = transfer.post_json(url, {"query": query, "variables": variables}, what=what)
    answer = answer if isinstance(answer, dict) else {}
    if errors := answer.get("errors"):
        listed = errors if isinstance(errors, list) else [errors]
        texts = [e.get("message") or e.get("detail") for e in listed if isinstance(e, dict)]
        reasons = "; ".join(str(text) for text in texts if text)
        raise DownloadFailed(f"{what}: {reasons or 'errors without a message'}")
    data = answer.get("data")
    return data if isinstance(data, dict) else {}


def file_name(url: str, default: str = "data.parquet") -> str:
    """What a download of this address is called: harmless, whatever the address is."""
    return _safe_names(unquote(urlsplit(url).path), default)[-1]


def _safe_names(path: str, default: str) -> list[str]:
    """The parts of a foreign path as harmless file names: no folders up, no hidden files."""
    names = [re.sub(r"[^A-Za-z0-9._-]", "_", part).lstrip(".")[-100:] for part in path.split("/")]
    return [name for name in names if name] or [default]
