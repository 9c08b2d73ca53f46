"""What `--model`, `--dataset` and `--benchmarks` can name: a URL, a local path, a dataset."""

from __future__ import annotations

from urllib.parse import urlsplit


def is_url(source: str) -> bool:
    """Whether this is an http(s) URL with a host."""
    try:
        parts = urlsplit(source)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def looks_local(source: str) -> bool:
    """Whether this can only be meant as a local path, never as the name of a NumerAPI dataset."""
    return not source or source.startswith(("/", "./", "../", "~"))
