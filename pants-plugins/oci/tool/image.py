"""Images: an OCI image layout that is a `docker load` archive as well, in one tar.

https://github.com/opencontainers/image-spec (image-layout.md, manifest.md, config.md).
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, BinaryIO, Dict, List, Sequence, Union

from .layer import EPOCH, TAR_END, Entry, tar_header, tar_padding

OCI = "application/vnd.oci.image"


def write_image(
    layers: Sequence[Path], reference: str, platform: str, run: Dict[str, Any], folder: Path
) -> None:
    """Writes `image.tar` and `image.json` into `folder`.

    `layers` are folders of `layer.tar.gz` and `layer.json`, the lowest first; `run` is the `config`
    object of the image's configuration (Entrypoint, Env, Labels …).
    """
    described = [json.loads((layer / "layer.json").read_text()) for layer in layers]
    config = _json(_config(described, platform, run))
    manifest = _json(_manifest(described, config))
    blobs: Dict[str, Union[bytes, Path]] = {_digest(manifest): manifest, _digest(config): config}
    for layer, path in zip(described, layers):
        blobs[layer["digest"]] = path / "layer.tar.gz"
    with open(folder / "image.tar", "wb") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json(_index(manifest, reference, platform)))
        _add(tar, "manifest.json", _json(_docker_manifest(described, config, reference)))
        for digest, content in sorted(blobs.items()):
            _add(tar, _blob(digest), content)
        tar.write(TAR_END)
    summary = {
        "reference": reference,
        "digest": _digest(manifest),
        "config_digest": _digest(config),
        "platform": platform,
        "layers": [
            {key: layer[key] for key in ("what", "digest", "diff_id", "size", "unpacked")}
            for layer in described
        ],
        "inputs": {layer["what"]: layer["inputs"] for layer in described},
    }
    (folder / "image.json").write_text(json.dumps(summary, indent=1) + "\n")


def _index(manifest: bytes, reference: str, platform: str) -> Dict[str, Any]:
    # Engines that keep images in containerd take an image's name from here, written in full.
    full_name = reference if "/" in reference else f"docker.io/library/{reference}"
    return {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.index.v1+json",
        "manifests": [
            {
                **_descriptor(f"{OCI}.manifest.v1+json", manifest),
                "platform": _platform(platform),
                "annotations": {
                    "io.containerd.image.name": full_name,
                    "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
                },
            }
        ],
    }


def _manifest(layers: Sequence[Dict[str, Any]], config: bytes) -> Dict[str, Any]:
    media_type = f"{OCI}.layer.v1.tar+gzip"
    return {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": _descriptor(f"{OCI}.config.v1+json", config),
        "layers": [
            {"mediaType": media_type, "digest": layer["digest"], "size": layer["size"]}
            for layer in layers
        ],
    }


def _docker_manifest(
    layers: Sequence[Dict[str, Any]], config: bytes, reference: str
) -> List[Dict[str, Any]]:
    """What `docker load` of engines that know no OCI layout reads."""
    return [
        {
            "Config": _blob(_digest(config)),
            "RepoTags": [reference],
            "Layers": [_blob(layer["digest"]) for layer in layers],
        }
    ]


def _config(layers: Sequence[Dict[str, Any]], platform: str, run: Dict[str, Any]) -> Dict[str, Any]:
    created = datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )
    return {
        "created": created,
        **_platform(platform),
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [layer["diff_id"] for layer in layers]},
        "history": [{"created": created, "created_by": layer["what"]} for layer in layers],
    }


def _platform(platform: str) -> Dict[str, str]:
    os, _, architecture = platform.partition("/")
    return {"os": os, "architecture": architecture}


def _descriptor(media_type: str, content: bytes) -> Dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _add(tar: BinaryIO, path: str, content: Union[bytes, Path]) -> None:
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    tar.write(tar_header(path, Entry(0o644, content), size))
    if isinstance(content, Path):
        with open(content, "rb") as file:
            shutil.copyfileobj(file, tar, 1 << 20)
    else:
        tar.write(content)
    tar.write(tar_padding(size))
