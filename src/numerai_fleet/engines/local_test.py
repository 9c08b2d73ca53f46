from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from numerai_fleet.engines.local import Limits, Workshop, processor
from numerai_fleet.manifest import Model

MODEL = Model("a", "py311", {"name": "a"})


def test_models_side_by_side_share_no_processor_while_another_is_idle():
    running: list[int | None] = [None]
    for _ in range(6):
        running.append(processor(MODEL, Limits(), range(3), running))
    assert running[1:] == [0, 1, 2, 0, 1, 2]
    assert processor(MODEL, Limits(), range(3), [0, 2, 2]) == 1


def test_a_model_without_a_limit_may_have_them_all():
    own = Model("a", "py311", {"name": "a", "limits": {"preset": "none"}})
    assert processor(own, Limits(), range(3), []) is None
    assert processor(MODEL, Limits("none"), range(3), []) is None
    assert processor(MODEL, Limits(), (), []) is None


def test_data_is_fetched_once_and_side_by_side(tmp_path):
    events = []

    @contextmanager
    def fetch(model: Model, source: str, folder: Path) -> Iterator[Callable[[], object]]:
        events.append(f"starts {source}")
        yield lambda: (folder / "live.parquet").write_text(source) if "gone" not in source else None
        events.append(f"leaves {source}")

    workshop = Workshop(tmp_path, fetch)
    for signature in ("1", "2"):
        urls = {"dataset": f"https://x/live?{signature}", "benchmarks": "https://x/gone"}
        entry, mounts = workshop.line(Model("a", "py311", {"model": "https://x/m", **urls}))
        assert Path(entry["dataset"]).read_text() == "https://x/live?1"
        assert mounts == (Path(entry["dataset"]),)
        assert entry["benchmarks"] == "https://x/gone"
    live, gone = "https://x/live?1", "https://x/gone"
    assert events == [f"starts {live}", f"starts {gone}", f"leaves {gone}", f"leaves {live}"]


def test_data_that_two_signatures_name_is_fetched_once(tmp_path):
    fetched = []

    @contextmanager
    def fetch(model: Model, source: str, folder: Path) -> Iterator[Callable[[], object]]:
        fetched.append(source)
        yield lambda: (folder / "live.parquet").touch()

    urls = {"dataset": "https://x/live?1", "benchmarks": "https://x/live?2"}
    Workshop(tmp_path, fetch).line(Model("a", "py311", {"model": "https://x/m", **urls}))
    assert len(fetched) == 1
