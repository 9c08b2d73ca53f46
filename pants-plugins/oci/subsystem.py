from __future__ import annotations

import enum
import os
import re

from pants.engine.rules import collect_rules
from pants.option.option_types import BoolOption, EnumOption, StrListOption, StrOption
from pants.option.subsystem import Subsystem
from pants.util.strutil import softwrap

from oci.util_rules.platform import PLATFORMS, host_platform


class InterpreterSource(enum.Enum):
    AUTO = "auto"
    PINNED = "pinned"
    HOST = "host"


class Oci(Subsystem):
    options_scope = "oci"
    help = "Options for building and running container images."

    toolchain_lock = StrOption(
        default="3rdparty/debian/bookworm.lock",
        help="The lock of the Debian packages that layers are built with.",
        advanced=True,
    )
    toolchain_sets = StrListOption(
        default=["os", "python3.11", "build"],
        help="The sets of that lock that hold the interpreter and the compressor.",
        advanced=True,
    )
    release_lock = StrOption(
        default="3rdparty/debian/trixie.lock",
        help="The lock of the Debian packages of the programs that a release is published with.",
        advanced=True,
    )
    release_sets = StrListOption(
        default=["release"],
        help="The sets of that lock that hold skopeo, oras and cosign with their libraries.",
        advanced=True,
    )
    platform = StrOption(
        default=None,
        help=softwrap("""
            The one platform to build or run, such as `linux/arm64`; `host` is this machine's.

            By default `package` builds all platforms of an image, and `run` this machine's.
            """),
    )
    interpreter_source = EnumOption(
        default=InterpreterSource.AUTO,
        help=softwrap("""
            Where a `standalone_python_interpreter` comes from: `pinned` is the archive that its lock
            names, `host` this machine's own interpreter of the same minor version, found on
            `[python-bootstrap].search_path`. `auto` takes the archive if it can be had, or else this
            machine's, with a warning: such an image is not reproducible.
            """),
    )
    cpu_index = StrOption(
        default=None,
        help=softwrap("""
            Where builds for machines without GPUs are: the URL of a package index, or the absolute
            path of a folder of wheels.

            What a `python_packages_layer` names as `from_cpu_index` is taken from there, in the
            version that is locked but whatever its hash is, and layers that are `only_for_gpus` are
            left out. Images of such layers are labelled `oci.cpu_index`.
            """),
    )
    python_lock = StrOption(
        default=None,
        help=softwrap("""
            The `poetry.lock` from which lists of what images hold take the hashes of wheels' files.

            Requirements files name the hashes of all files of a version, and not which is which.
            """),
        advanced=True,
    )
    engines = StrListOption(
        default=["docker", "podman", "bubblewrap"],
        help=softwrap("""
            The container engines that `run` may use: the first one that works is taken.

            `bubblewrap` comes with this backend and needs neither a daemon nor privileges.
            """),
    )
    entrypoint = StrOption(
        default=None,
        help=softwrap("""
            What `run` starts instead of the image's entry point.

            For instance `--oci-entrypoint=/usr/bin/python3`.
            """),
    )

    git_ref = StrOption(
        default=None,
        help=softwrap("""
            The full id of the commit that a release is built from.

            It goes into the image, as the variable `GIT_REF` and as the labels
            `org.opencontainers.image.revision` and `oci.target`, and is the tag that `publish` always
            gives. Without it images say nothing of their commit, so that equal content has an equal
            digest.
            """),
    )
    registry = StrOption(
        default=None,
        help=softwrap("""
            Where `publish` pushes images to, such as `registry.example/numerai`; an image's
            `repository` is added to it.
            """),
    )
    publish_tags = StrListOption(
        default=[],
        help="Tags that `publish` moves to the image, such as `latest`, beside the commit's own.",
    )
    publish_plain_http = BoolOption(
        default=False,
        help="Whether the registry is spoken to without TLS. For a registry on this machine only.",
    )
    publish_incomplete = BoolOption(
        default=False,
        help=softwrap("""
            Whether `publish` also pushes images that lack one of their platforms, or whose interpreter
            is this machine's own and that nobody can reproduce therefore.
            """),
    )
    provenance_inputs = StrListOption(
        default=[],
        help=softwrap("""
            Files that a release's provenance names with their digests, beside the locks that layers
            are made of.
            """),
        advanced=True,
    )
    builder_id = StrOption(
        default="urn:pants:oci:by-hand",
        help=softwrap("""
            Who builds, as a URI, for a release's provenance: for instance that of the workflow.
            """),
    )
    signing_key = StrOption(
        default=None,
        help=softwrap("""
            The private key that `publish` signs with: a file that `cosign generate-key-pair` wrote, or
            `env://NAME` for the variable that holds it. Its password is read from the variable
            `COSIGN_PASSWORD`.
            """),
    )
    sign_keyless = BoolOption(
        default=False,
        help=softwrap("""
            Whether `publish` signs with a certificate for the identity that this machine's provider
            vouches for, as GitHub's workflows have one. It needs Sigstore's services.
            """),
    )
    transparency_log = BoolOption(
        default=True,
        help=softwrap("""
            Whether signatures are entered in Sigstore's public log. Without it `cosign verify` needs
            `--insecure-ignore-tlog`.
            """),
    )

    @property
    def checked_git_ref(self) -> str | None:
        """Raises ValueError for what is no full commit id."""
        if self.git_ref and not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", self.git_ref):
            raise ValueError(
                f"--oci-git-ref is a full commit id, as `git rev-parse HEAD` prints it; not "
                f"{self.git_ref}."
            )
        return self.git_ref or None

    @property
    def chosen_platform(self) -> str | None:
        """The platform that was asked for. Raises ValueError for one that is not known."""
        if self.platform is None:
            return None
        name = host_platform().name if self.platform == "host" else self.platform
        if name not in PLATFORMS:
            raise ValueError(f"--oci-platform is one of host, {', '.join(PLATFORMS)}; not {name}.")
        return name

    @property
    def checked_cpu_index(self) -> str | None:
        """Raises ValueError for a path that depends on where one is."""
        if self.cpu_index and "://" not in self.cpu_index and not os.path.isabs(self.cpu_index):
            raise ValueError(f"--oci-cpu-index is a URL or an absolute path; not {self.cpu_index}.")
        return self.cpu_index or None


def rules():
    return collect_rules()
