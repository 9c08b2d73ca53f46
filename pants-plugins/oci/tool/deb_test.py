from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from oci.testutil.debs import Member, folder, hard_link, make_deb, symlink
from oci.tool.deb import Deb, read_deb
from oci.tool.layer import Entry, Tree


def read(deb: bytes, tmp_path: Path) -> Deb:
    path = tmp_path / "tiny_1_all.deb"
    path.write_bytes(deb)
    return read_deb(path)


def unpacked(files: dict[str, str | Member], tmp_path: Path) -> dict[str, Entry]:
    tree = Tree()
    read(make_deb("tiny", files), tmp_path).add_to(tree)
    return tree.entries


@pytest.mark.parametrize("compression", ["xz", "gz", ""])
def test_name_scripts_and_files(tmp_path: Path, compression: str) -> None:
    files = {"etc/tiny.conf": "odd"}
    scripts = {"postinst": "#!/bin/sh\n", "postrm": "#!/bin/sh\n", "md5sums": ""}
    deb = read(make_deb("tiny", files, scripts, compression), tmp_path)
    assert deb.name == "tiny"
    assert deb.scripts == ("postinst",)
    tree = Tree()
    deb.add_to(tree)
    assert tree.entries == {"etc": Entry(), "etc/tiny.conf": Entry(0o644, b"odd")}


@pytest.mark.parametrize("length", range(6))
def test_members_of_even_and_odd_size(tmp_path: Path, length: int) -> None:
    control = {"md5sums": "odd6it"[:length]}
    tree = Tree()
    read(make_deb("tiny", {"etc/tiny.conf": "odd"}, control, compression="gz"), tmp_path).add_to(
        tree
    )
    assert tree.entries["etc/tiny.conf"].read() == b"odd"


@pytest.mark.parametrize(
    "shipped, in_image",
    [
        ("bin/sh", "usr/bin/sh"),
        ("sbin/ldconfig", "usr/sbin/ldconfig"),
        ("lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
        ("usr/lib/libm.so.6", "usr/lib/libm.so.6"),
        ("library/bin/sh", "library/bin/sh"),
    ],
)
def test_folders_that_moved_to_usr(tmp_path: Path, shipped: str, in_image: str) -> None:
    files = [path for path, entry in unpacked({shipped: ""}, tmp_path).items() if entry.is_file]
    assert files == [in_image]


def test_a_folder_below_the_root_moves_too(tmp_path: Path) -> None:
    assert set(unpacked({"lib": folder(), "lib/udev": folder()}, tmp_path)) == {
        *("usr", "usr/lib", "usr/lib/udev"),
    }


def test_links(tmp_path: Path) -> None:
    entries = unpacked(
        {
            "bin/perl": Member(b"#!", 0o755),
            "usr/bin/perl5.36": hard_link("./bin/perl"),
            "usr/lib/libz.so.1": symlink("libz.so.1.2.13"),
        },
        tmp_path,
    )
    assert entries["usr/bin/perl5.36"] == entries["usr/bin/perl"] == Entry(0o755, b"#!")
    assert entries["usr/lib/libz.so.1"] == Entry(0o777, target="libz.so.1.2.13")


@pytest.mark.parametrize(
    "shipped, in_image",
    [(0o4755, 0o755), (0o2755, 0o755), (0o1644, 0o644), (0o664, 0o644), (0o600, 0o600)],
)
def test_a_file_makes_nobody_another_user(tmp_path: Path, shipped: int, in_image: int) -> None:
    assert unpacked({"usr/bin/su": Member(mode=shipped)}, tmp_path)["usr/bin/su"].mode == in_image


@pytest.mark.parametrize("shipped, in_image", [(0o1777, 0o1777), (0o2775, 0o775), (0o700, 0o700)])
def test_a_folder_keeps_its_mode_but_for_setgid(
    tmp_path: Path, shipped: int, in_image: int
) -> None:
    entries = unpacked({"folder": folder(shipped), "folder/file": ""}, tmp_path)
    assert entries["folder"].mode == in_image


def test_a_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tiny: ./dev/null is neither file, folder nor link"):
        unpacked({"dev/null": Member(type=tarfile.CHRTYPE)}, tmp_path)


@pytest.mark.parametrize(
    "content, says",
    [
        (b"<html>Not Found</html>", "tiny_1_all.deb is not a Debian package"),
        (b"", "tiny_1_all.deb is not a Debian package"),
        (b"!<arch>\n", "tiny_1_all.deb has no control.tar"),
        (make_deb("tiny", {}, compression="bz2"), r"no control.tar compressed .*'data.tar.bz2'"),
    ],
    ids=["page", "empty", "no-members", "unknown-compression"],
)
def test_what_is_no_package_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(content, tmp_path)
