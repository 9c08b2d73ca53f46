"""A model that fills the disk is stopped, and what it wrote is gone."""

import pytest
from hostile.parts import good


def one_file(live_features):
    with open("endless", "wb") as file:
        while True:
            file.write(bytes(1 << 24))


def one_file_and_goes_on(live_features):
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    number = 0
    while True:
        number += 1
        with open(f"{number}", "wb", buffering=0) as file:
            file.write(bytes(1 << 28))


def many_empty_files(live_features):
    import os

    for number in range(1 << 30):
        os.close(os.open(f"{number}", os.O_CREAT))


@pytest.mark.places("outside")
@pytest.mark.parametrize(
    "model, says",
    [
        (one_file, "the model wrote a file of more than 512 MB"),
        (one_file_and_goes_on, "of files, more than the 1.0 GB that it may"),
        (many_empty_files, "of files, more than the 1.0 GB that it may"),
    ],
)
def test_it_is_stopped(model, says, attack):
    assert says in attack(model, "--timeout=250", code=4).log


def sparse(live_features):
    with open("sparse", "wb") as file:
        file.truncate(1 << 40)


@pytest.mark.places("outside")
def test_a_sparse_file_can_be_no_larger(attack):
    attack(sparse, code=4)


def hides_what_it_wrote(live_features):
    import os

    for _ in range(3000):
        os.mkdir("d" * 20)
        os.chdir("d" * 20)
    with open("file", "wb") as file:
        file.write(bytes(1000))
    os.mkdir("closed", 0)
    os.mkdir("other")
    os.symlink("/", "other/link")
    os.chmod("other", 0)
    os.chmod(".", 0)
    return good(live_features)


@pytest.mark.places("outside")
def test_folders_too_deep_to_be_named_are_removed(attack):
    attack(hides_what_it_wrote, code=0)


def writes_elsewhere(live_features):
    import os
    import tempfile

    written = []
    for folder in ("/tmp", "/var/tmp", "/", "/root", "/usr", "/etc", "/run"):
        try:
            path = tempfile.mktemp(dir=folder)
            open(path, "w").close()
            written.append(path)
            os.unlink(path)
        except OSError:
            pass
    raise ValueError(f"wrote {written}")


def test_only_its_own_folder_is_for_writing(attack):
    assert "ValueError: wrote []" in attack(writes_elsewhere, code=1).log
