"""One command per thing to make; each writes into the folder `out`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import Any, Dict, Mapping

from .compatibility import IncompatibleImage, linkage, wheels
from .deb import read_deb
from .debian import debian_tree
from .deflate import compressor
from .image import write_image
from .interpreter import (
    PREFIX,
    archived,
    check_version,
    copied,
    interpreter_facts,
    interpreter_tree,
)
from .layer import Tree, read_layer, write_layer
from .python import installed_packages, source_tree
from .requirements import CpuIndex, Uv, not_installed, required


def unpack(args: argparse.Namespace) -> None:
    """Unpacks packages into `out`, to be used on this machine."""
    tree = Tree()
    for deb in args.debs:
        read_deb(deb).add_to(tree)
    _lay_out(tree, args.out)


def unpack_interpreter(args: argparse.Namespace) -> None:
    """Unpacks an archived interpreter into `out`, to compile with on this machine."""
    found = archived(args.archive, args.version, args.omit)
    for soname, library in found.libraries.items():
        found.tree.add(f"{PREFIX}/lib/{soname}", library)
    _lay_out(found.tree, args.out)


def _lay_out(tree: Tree, out: Path) -> None:
    for path, entry in tree.entries.items():
        file = out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if entry.target is not None and not entry.target.startswith("/"):
            file.symlink_to(entry.target)
        elif entry.is_file:
            file.write_bytes(entry.read())
            file.chmod(entry.mode)


def debian(args: argparse.Namespace) -> None:
    files = debian_tree(args.debs, args.base, args.triplet, args.omit, args.link, args.python)
    python = {"python": {"version": args.python_version}} if args.python_version else {}
    _write(args, files.tree, {**files.facts, **python})


def interpreter(args: argparse.Namespace) -> None:
    check_version(args.python, args.exact_version)
    if args.archive:
        found = archived(args.archive, args.version, args.omit)
    else:
        found = copied(args.executable, args.stdlib, args.version, args.omit)
    below = [read_layer(folder) for folder in args.below]
    tree = interpreter_tree(found, args.version, below, args.triplet, args.python)
    labels = json.loads(args.labels)
    facts = {
        "python": {"version": args.version},
        "interpreter": interpreter_facts(found, tree, args.exact_version, args.archive),
        **({"labels": labels} if labels else {}),
    }
    _write(args, tree, facts)


def packages(args: argparse.Namespace) -> None:
    if args.left_out:
        _write(args, Tree(), {"missing": required(args.requirements)})
        return
    uv = Uv(args.uv, args.python, args.for_python, args.platform)
    index = CpuIndex(args.cpu_index, args.from_cpu_index) if args.cpu_index else None
    installed = installed_packages(
        args.requirements, uv, args.site_packages, args.omit, index, args.strip
    )
    found = wheels(installed.tree)
    pins = installed.from_cpu_index
    facts = {
        "for_python": args.for_python,
        "wheels": found,
        "missing": not_installed(args.requirements, [wheel["name"] for wheel in found]),
        "optional_libraries": args.optional_library,
        "omitted": installed.omitted,
        "from_cpu_index": [f"{name}=={pin.version}" for name, pin in pins.items()],
    }
    _write(args, installed.tree, facts, {name: str(pin) for name, pin in pins.items()})


def sources(args: argparse.Namespace) -> None:
    tree = source_tree(args.source, args.python, args.site_packages)
    _write(args, tree, {"for_python": args.for_python})


def image(args: argparse.Namespace) -> None:
    layers = {
        platform: [Path(folder) for folder in folders]
        for platform, folders in json.loads(args.layers).items()
    }
    try:
        write_image(layers, args.reference, json.loads(args.run), args.load, args.out)
    except IncompatibleImage as problems:
        raise SystemExit(str(problems)) from None


def _write(
    args: argparse.Namespace, tree: Tree, facts: Dict[str, Any], pins: Mapping[str, str] = {}
) -> None:
    inputs, compress = {**json.loads(args.inputs), **pins}, compressor(args.libdeflate)
    write_layer(tree, args.out, args.what, inputs, compress, {**facts, "linkage": linkage(tree)})


def main() -> None:
    parser = argparse.ArgumentParser(prog="oci.tool", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    out = argparse.ArgumentParser(add_help=False)
    out.add_argument("--out", type=Path, default=Path("out"))
    layer = argparse.ArgumentParser(add_help=False, parents=[out])
    layer.add_argument("--what", required=True)
    layer.add_argument("--inputs", default="{}", help="JSON: the pins that the layer was made from")
    layer.add_argument("--libdeflate", type=Path, required=True)
    layer.add_argument(
        "--python",
        type=shlex.split,
        required=True,
        help="the command that starts an interpreter of the image's minor version",
    )

    command = commands.add_parser("unpack", parents=[out])
    command.add_argument("debs", type=Path, nargs="+")
    command.set_defaults(run_command=unpack)

    command = commands.add_parser("debian", parents=[layer])
    command.add_argument("debs", type=Path, nargs="+")
    command.add_argument("--base", type=Path, nargs="*", default=[])
    command.add_argument("--triplet", required=True)
    command.add_argument("--omit", action="append", default=[])
    command.add_argument("--link", action="append", default=[])
    command.add_argument("--python-version", help="the minor version, if this is an interpreter")
    command.set_defaults(run_command=debian)

    found = argparse.ArgumentParser(add_help=False)
    found.add_argument("--version", required=True, help="the interpreter's minor version")
    found.add_argument("--archive", type=Path)
    found.add_argument("--omit", action="append", default=[])

    command = commands.add_parser("unpack-interpreter", parents=[out, found])
    command.set_defaults(run_command=unpack_interpreter)

    command = commands.add_parser("interpreter", parents=[layer, found])
    command.add_argument("--executable", type=Path, help="without --archive: this machine's own")
    command.add_argument("--stdlib", type=Path, action="append", help="its standard library")
    command.add_argument("--exact-version", required=True)
    command.add_argument("--below", type=Path, nargs="*", default=[], help="the layers below")
    command.add_argument("--triplet", required=True)
    command.add_argument("--labels", default="{}", help="JSON: labels for the image")
    command.set_defaults(run_command=interpreter)

    command = commands.add_parser("packages", parents=[layer])
    command.add_argument("--requirements", type=Path, required=True)
    command.add_argument("--uv", type=Path, required=True)
    command.add_argument("--for-python", required=True, help="the interpreter's minor version")
    command.add_argument("--platform", required=True)
    command.add_argument("--no-strip", dest="strip", action="store_false")
    command.add_argument("--optional-library", action="append", default=[])
    command.add_argument("--omit", action="append", default=[])
    command.add_argument("--site-packages", required=True)
    command.add_argument("--cpu-index", help="a URL, or a folder of wheels")
    command.add_argument("--from-cpu-index", action="append", default=[], help="a package's name")
    command.add_argument("--left-out", action="store_true", help="hold nothing but the names")
    command.set_defaults(run_command=packages)

    command = commands.add_parser("sources", parents=[layer])
    command.add_argument("--source", type=Path, required=True)
    command.add_argument("--for-python", required=True, help="the interpreter's minor version")
    command.add_argument("--site-packages", required=True)
    command.set_defaults(run_command=sources)

    command = commands.add_parser("image", parents=[out])
    command.add_argument(
        "--layers", required=True, help="JSON: for each platform the folders of its layers"
    )
    command.add_argument("--reference", required=True)
    command.add_argument("--load", required=True, help="the platform that `docker load` takes")
    command.add_argument("--run", required=True, help="JSON: the `config` object of the image")
    command.set_defaults(run_command=image)

    args = parser.parse_args()
    # What is made here must not depend on who makes it.
    os.umask(0o022)
    args.out.mkdir(parents=True, exist_ok=True)
    args.run_command(args)


if __name__ == "__main__":
    main()
