import os

import pytest

from numerai_predict import limits


@pytest.mark.parametrize(
    "text, size",
    [("3GB", 3 << 30), ("3g", 3 << 30), ("1.5GiB", 3 << 29), ("512 MB", 1 << 29), ("4096", 4096)],
)
def test_sizes(text, size):
    assert limits.parse_bytes(text) == size


@pytest.mark.parametrize("text, seconds", [("20", 20), ("20s", 20), ("10m", 600), ("1.5h", 5400)])
def test_times(text, seconds):
    assert limits.parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "3 apples", "GB", "1e3", "nan", "inf"])
def test_what_is_no_limit(text):
    for parse in (limits.parse_bytes, limits.parse_seconds):
        with pytest.raises(ValueError, match="is no (size|time) such as"):
            parse(text)


@pytest.mark.parametrize(
    "size, text",
    [(999, "999 bytes"), (2048, "2.0 kB"), (300 << 20, "300 MB"), (1288490188, "1.2 GB")],
)
def test_sizes_as_people_read_them(size, text):
    assert limits.format_bytes(size) == text


def test_a_containers_memory(tmp_path, monkeypatch):
    limit, events = tmp_path / "memory.max", tmp_path / "memory.events"
    limit.write_text("536870912\n")
    events.write_text("low 0\noom 3\noom_kill 1\n")
    monkeypatch.setattr(limits.ContainerMemory, "_FILES", ((str(limit), str(events)),))
    memory = limits.ContainerMemory()
    assert memory.limit == 512 << 20
    assert not memory.killed()
    events.write_text("low 0\noom 4\noom_kill 2\n")
    assert memory.killed()


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n", None])
def test_a_container_without_a_limit(tmp_path, monkeypatch, text):
    limit = tmp_path / "memory.max"
    if text is not None:
        limit.write_text(text)
    monkeypatch.setattr(limits.ContainerMemory, "_FILES", ((str(limit), "/none"),))
    memory = limits.ContainerMemory()
    assert memory.limit is None
    assert not memory.killed()


def test_the_disk_that_a_user_takes(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to("/")
    assert 100_000 <= limits.disk_use(str(tmp_path), os.getuid()) < 200_000
    assert limits.disk_use(str(tmp_path), os.getuid() + 1) == 0
