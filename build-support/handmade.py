"""Small images for tests, written by hand, with whatever is to be wrong with them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MEDIA = "application/vnd.oci.image"


def tar(files: Mapping[str, bytes], mode: int = 0o644) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Handmade:
    """The files of an archive: changed in `files` after it is made, they belie the image."""

    def __init__(
        self,
        layers: Mapping[str, bytes],
        *architectures: str,
        config: Mapping[str, Any] | None = None,
        level: int = 9,
    ) -> None:
        self.files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        self.blobs: dict[str, str] = {}
        tops = [
            self._manifest(layers, architecture, config or {}, level)
            for architecture in architectures or ("amd64",)
        ]
        if len(tops) > 1:
            tops = [self._add("index", "index.v1+json", self._index(tops))]
        self.files["index.json"] = self._index(tops)

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tar(self.files))
        return path

    def _index(self, manifests: list[dict[str, Any]]) -> bytes:
        return json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()

    def _manifest(
        self, layers: Mapping[str, bytes], architecture: str, config: Mapping[str, Any], level: int
    ) -> dict[str, Any]:
        diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers.values()]
        described = {
            **{"os": "linux", "architecture": architecture, "config": config},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created_by": what} for what in layers],
        }
        manifest = {
            **{"schemaVersion": 2, "mediaType": f"{MEDIA}.manifest.v1+json"},
            "config": self._add("config", "config.v1+json", json.dumps(described).encode()),
            "layers": [
                self._add(what, "layer.v1.tar+gzip", gzip.compress(layer, level, mtime=0))
                for what, layer in layers.items()
            ],
        }
        content = json.dumps(manifest).encode()
        return self._add(f"manifest {architecture}", "manifest.v1+json", content)

    def _add(self, what: str, kind: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[what] = f"blobs/sha256/{digest}"
        self.files[self.blobs[what]] = content
        return {"mediaType": f"{MEDIA}.{kind}", "digest": f"sha256:{digest}", "size": len(content)}
