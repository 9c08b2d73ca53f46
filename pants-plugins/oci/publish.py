"""Pushes an image to a registry, with what is to be known of it, and names it last.

Blobs and manifests come first, by digest; then bills of materials and the provenance, as referrers,
which leave the image's digest as it is; then the signature. Only when all is there do tags move, so
that a push that was cut off has changed nothing for anybody, and is simply done again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NoReturn, Optional, Sequence, Tuple

# Kinds of documents by their files' endings, as they are called in registries.
DOCUMENTS = {
    ".cdx.json": "application/vnd.cyclonedx+json",
    ".spdx.json": "application/spdx+json",
}
STATEMENT = "application/vnd.in-toto+json"
PROVENANCE = "https://slsa.dev/provenance/v1"
# How the goal builds, for the readers of a provenance: this file's concept, not an address to fetch.
BUILD_TYPE = "urn:pants:oci_image:1"

# What registries, and programs that ask them, say to somebody they do not know.
REFUSED = re.compile(r"unauthorized|authentication required|\b40[13]\b|denied", re.IGNORECASE)
# What they say of a registry without TLS.
PLAIN = "server gave HTTP response to HTTPS client"
RETRIES = 3


@dataclass(frozen=True)
class Registry:
    """`repository` is the image's full name; `programs` start skopeo, oras and cosign."""

    repository: str
    programs: Mapping[str, Sequence[str]]
    plain_http: bool
    environment: Dict[str, str] = field(repr=False)

    @property
    def host(self) -> str:
        return self.repository.partition("/")[0]

    def at(self, digest: str) -> str:
        return f"{self.repository}@{digest}"

    def call(
        self, program: str, *args: str, quiet: bool = False, folder: Optional[Path] = None
    ) -> None:
        """Runs a program; what it reports is shown. Exits where it fails, and says what to do."""
        process = subprocess.Popen(
            [*self.programs[program], *args],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.DEVNULL if quiet else None,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if not quiet:
                sys.stderr.write(line)
        if process.wait() == 0:
            return
        if quiet:
            sys.stderr.writelines(said)
        if REFUSED.search("".join(said)):
            fail(
                f"{self.host} refused: it does not know you, or you may not write to {self.repository}.\n"
                f"Log in with `docker login {self.host}` and publish again."
            )
        if PLAIN in "".join(said):
            fail(f"{self.host} has no TLS. If it is on this machine: --oci-publish-plain-http.")
        fail(
            f"{program} failed ({process.returncode}). No tag was moved; publish again, which sends only "
            "what the registry lacks."
        )

    def push(self, archive: Path, digest: str, scratch: Path) -> None:
        self.call(
            *("skopeo", f"--tmpdir={scratch}", "--insecure-policy", "copy", "--all"),
            *("--preserve-digests", f"--retry-times={RETRIES}"),
            *(["--dest-tls-verify=false"] if self.plain_http else []),
            *(f"oci-archive:{archive}", f"docker://{self.at(digest)}"),
        )

    def attach(self, digest: str, document: Path, kind: str, created: str) -> None:
        """`created` keeps the attached manifest, and so its digest, the same whenever it is made."""
        self.call(
            *("oras", "attach", *self._oras(), f"--artifact-type={kind}"),
            f"--annotation=org.opencontainers.image.created={created}",
            *(self.at(digest), f"{document.name}:{kind}"),
            quiet=True,
            # The path becomes the document's name, and so a part of the manifest.
            folder=document.parent,
        )

    def sign(self, digest: str, predicate: Path, options: Sequence[str]) -> None:
        common = ["--yes", *options, *(["--allow-http-registry"] if self.plain_http else [])]
        self.call("cosign", "sign", *common, "--recursive", self.at(digest), quiet=True)
        self.call(
            *("cosign", "attest", *common, "--replace", "--type=slsaprovenance1"),
            *(f"--predicate={predicate}", self.at(digest)),
            quiet=True,
        )

    def tag(self, digest: str, tags: Sequence[str]) -> None:
        # One after the other: given all, oras moves them in any order.
        for tag in tags:
            self.call("oras", "tag", *self._oras(), self.at(digest), tag, quiet=True)
            say(f"{self.repository}:{tag} is {digest}")

    def _oras(self) -> List[str]:
        return ["--plain-http"] if self.plain_http else []


def provenance(repository: str, image: Dict[str, Any], made_of: Dict[str, Any]) -> Dict[str, Any]:
    """An in-toto statement of what an image was made of, the same whenever and wherever it is made.

    https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md, https://slsa.dev/provenance/v1

    Args:
        image: The content of `image.json`.
        made_of: The address of its `target`, the `git_ref`, who the `builder` is, and `inputs`: the
            files that pin what comes from elsewhere, path to SHA-256.
    """
    commit = {"name": "source", "digest": {"gitCommit": made_of["git_ref"]}}
    inputs = [
        {"name": path, "digest": {"sha256": sha256}}
        for path, sha256 in sorted(made_of["inputs"].items())
    ]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": repository, "digest": dict([image["digest"].split(":")])},
        ],
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "target": made_of["target"],
                    "platforms": sorted(image["platforms"]),
                    "git_ref": made_of["git_ref"],
                },
                "resolvedDependencies": [commit, *inputs],
            },
            "runDetails": {"builder": {"id": made_of["builder"]}},
        },
    }


def documents(
    folder: Path, platforms: Mapping[str, Dict[str, Any]]
) -> Iterator[Tuple[str, Path, str]]:
    """The bills of materials in `folder`: what manifest each is for, its file, and its kind."""
    for platform, summary in sorted(platforms.items()):
        for ending, kind in DOCUMENTS.items():
            yield summary["digest"], folder / (platform.replace("/", "-") + ending), kind


def with_credentials(scratch: Path, host: str) -> Dict[str, str]:
    """The environment in which all three programs find what `docker login` left."""
    env = os.environ
    docker = Path(env.get("DOCKER_CONFIG") or Path.home() / ".docker", "config.json")
    known = Path(env.get("REGISTRY_AUTH_FILE") or docker)
    config = scratch / "config.json"
    settings = json.loads(known.read_text()) if known.exists() else {}
    store = settings.get("credsStore")
    if store and host not in settings.get("credHelpers", {}):
        # skopeo knows a helper for one registry, but not one for all. Secrets are not copied.
        settings = {"credHelpers": {host: store}}
    if store or not known.exists():
        config.write_text(json.dumps(settings))
    else:
        config.symlink_to(known.absolute())
    return {**env, "DOCKER_CONFIG": str(scratch), "REGISTRY_AUTH_FILE": str(config)}


def publish(args: argparse.Namespace, scratch: Path) -> None:
    image = json.loads((args.folder / "image.json").read_text())
    digest = image["digest"]
    host = args.repository.partition("/")[0]
    environment = with_credentials(scratch, host)
    registry = Registry(args.repository, args.programs, args.plain_http, environment)
    created = datetime.datetime.fromtimestamp(args.epoch, datetime.timezone.utc).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )

    say(f"pushing {registry.at(digest)}")
    registry.push(args.folder / "image.tar", digest, scratch)

    statement = provenance(args.repository, image, args.made_of)
    predicate, attested = scratch / "predicate.json", scratch / "provenance.intoto.json"
    predicate.write_text(json.dumps(statement["predicate"], indent=1, sort_keys=True) + "\n")
    attested.write_text(json.dumps(statement, indent=1, sort_keys=True) + "\n")
    for manifest, file, kind in documents(args.folder, image["platforms"]):
        say(f"attaching {file.name}")
        registry.attach(manifest, file, kind, created)
    say("attaching the provenance")
    registry.attach(digest, attested, STATEMENT, created)

    if args.sign:
        say("signing")
        registry.sign(digest, predicate, args.sign)
    registry.tag(digest, args.tag)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    say(text)
    raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=json.loads, required=True, help="name to argv, as JSON")
    parser.add_argument("--repository", required=True, help="the image's full name, without a tag")
    parser.add_argument("--tag", action="append", required=True)
    parser.add_argument("--made-of", type=json.loads, required=True, help="see `provenance`")
    parser.add_argument(
        "--epoch", type=int, required=True, help="when attached documents were made"
    )
    parser.add_argument(
        "--sign", action="append", help="an option for cosign; none is no signature"
    )
    parser.add_argument("--plain-http", action="store_true")
    parser.add_argument("folder", type=Path, help="has image.tar and image.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        publish(args, Path(scratch))


if __name__ == "__main__":
    main()
