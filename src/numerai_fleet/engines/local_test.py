from __future__ import annotations

from numerai_fleet.engines.local import Limits, processor
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
