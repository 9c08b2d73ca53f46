"""Images: an OCI image layout that is a `docker load` archive as well, in one tar.

An image of several platforms is an image index of one manifest for each.
https://github.com/opencontainers/image-spec (image-layout.md, image-index.md, manifest.md, config.md).
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Dict, List, Mapping, Sequence, Union

from .compatibility import canonical, check
from .layer import EPOCH, TAR_END, Entry, tar_header, tar_padding

OCI = "application/vnd.oci.image"
# Labels of an image, and the facts of its layers that they list.
LISTS = {"oci.missing_packages": "missing", "oci.cpu_index": "from_cpu_index"}


@dataclass(frozen=True)
class PlatformImage:
    """What one platform gets: `layers` are the descriptions of its layers, the lowest first."""

    platform: str
    layers: Sequence[Dict[str, Any]]
    config: bytes
    manifest: bytes

    def summary(self) -> Dict[str, Any]:
        return {
            "digest": _digest(self.manifest),
            "config_digest": _digest(self.config),
            "labels": json.loads(self.config)["config"].get("Labels", {}),
            "layers": [_layer_summary(layer) for layer in self.layers],
            "inputs": {layer["what"]: layer["inputs"] for layer in self.layers},
        }


def _layer_summary(layer: Dict[str, Any]) -> Dict[str, Any]:
    keys = ("what", "digest", "diff_id", "size", "unpacked", "omitted")
    summary = {key: layer[key] for key in keys if key in layer}
    wheels = layer.get("wheels", ())
    packages = sorted(f"{canonical(wheel['name'])}=={wheel['version']}" for wheel in wheels)
    return {**summary, "packages": packages} if packages else summary


def write_image(
    layers: Mapping[str, Sequence[Path]],
    reference: str,
    run: Dict[str, Any],
    load: str,
    folder: Path,
) -> None:
    """Writes `image.tar` and `image.json` into `folder`.

    Args:
        layers: For each platform the folders of `layer.tar.gz` and `layer.json`, the lowest first.
            Those that hold nothing are left out.
        run: The `config` object of the images' configuration (Entrypoint, Env, Labels …).
        load: The platform that `docker load` of an engine without image indexes takes.

    Raises IncompatibleImage, and writes nothing, where layers do not fit each other.
    """
    blobs: Dict[str, Union[bytes, Path]] = {}
    images = []
    for platform, folders in layers.items():
        described = [json.loads((layer / "layer.json").read_text()) for layer in folders]
        check(described, platform)
        blobs.update(
            (layer["digest"], path / "layer.tar.gz")
            for layer, path in zip(described, folders)
            if not _is_empty(layer)
        )
        images.append(_platform_image(platform, described, run))
    for image in images:
        blobs.update({_digest(document): document for document in (image.config, image.manifest)})
    top = _descriptor_of(images[0])
    if len(images) > 1:
        index = _json(_index([_descriptor_of(image) for image in images]))
        top = _descriptor(f"{OCI}.index.v1+json", index)
        blobs[top["digest"]] = index
    loaded = next((image for image in images if image.platform == load), images[0])
    with open(folder / "image.tar", "wb") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json(_index([{**top, "annotations": _names(reference)}])))
        _add(tar, "manifest.json", _json(_docker_manifest(loaded, reference)))
        for digest, content in sorted(blobs.items()):
            _add(tar, _blob(digest), content)
        tar.write(TAR_END)
    summary = {
        "reference": reference,
        "digest": top["digest"],
        "platforms": {image.platform: image.summary() for image in images},
    }
    (folder / "image.json").write_text(json.dumps(summary, indent=1) + "\n")


def _platform_image(
    platform: str, layers: Sequence[Dict[str, Any]], run: Dict[str, Any]
) -> PlatformImage:
    labels = _labels(layers, run)
    held = [layer for layer in layers if not _is_empty(layer)]
    config = _json(_config(held, platform, {**run, "Labels": labels}))
    return PlatformImage(platform, held, config, _json(_manifest(held, config)))


def _is_empty(layer: Dict[str, Any]) -> bool:
    """Such a layer may still tell what an image lacks."""
    return bool(layer["unpacked"] == len(TAR_END))


def _labels(layers: Sequence[Dict[str, Any]], run: Dict[str, Any]) -> Dict[str, str]:
    """The image's own labels, and what its layers have to say of themselves."""
    labels = dict(run.get("Labels", {}))
    for layer in layers:
        labels.update(layer.get("labels", {}))
    for label, fact in LISTS.items():
        listed = sorted({item for layer in layers for item in layer.get(fact, ())})
        if listed:
            labels[label] = ",".join(listed)
    return labels


def _index(manifests: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.index.v1+json",
        "manifests": list(manifests),
    }


def _names(reference: str) -> Dict[str, str]:
    # Engines that keep images in containerd take an image's name from here, written in full.
    full_name = reference if "/" in reference else f"docker.io/library/{reference}"
    return {
        "io.containerd.image.name": full_name,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }


def _descriptor_of(image: PlatformImage) -> Dict[str, Any]:
    descriptor = _descriptor(f"{OCI}.manifest.v1+json", image.manifest)
    return {**descriptor, "platform": _platform(image.platform)}


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


def _docker_manifest(image: PlatformImage, reference: str) -> List[Dict[str, Any]]:
    """What `docker load` of engines that know no OCI layout reads."""
    return [
        {
            "Config": _blob(_digest(image.config)),
            "RepoTags": [reference],
            "Layers": [_blob(layer["digest"]) for layer in image.layers],
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
