from __future__ import annotations

import json

from numerai_fleet import collect
from numerai_fleet.manifest import Model


def said(name: str, code: int) -> str:
    result = {"entry": name, "code": code, "phases": {"load": 0.5, "predict": 1.0}, "rows": 7}
    return json.dumps(result)


def test_logs_tell_what_became_of_models():
    models = [Model(name, "py311", {}) for name in ("a", "b", "c")]
    # As `kubectl logs --prefix` and `docker service logs` put it; b was tried twice.
    log = "\n".join(
        [
            f"[pod/round-0-1/predictor] {said('b', 7)}",
            "a warning, and {no JSON}",
            f"round-0.0.x1y2@node    | {said('a', 0)}",
            said("b", 0),
            '{"entry": "c"}',
        ]
    )
    rows = {row["name"]: row for row in collect.rows(models, collect.from_logs(log))}
    assert [(row["code"], row["tries"], row["verdict"]) for row in rows.values()] == [
        (0, 1, "ok"),
        (0, 2, "ok"),
        (None, 0, "not run"),
    ]
    assert rows["a"]["seconds"] == 1.5 and rows["a"]["rows"] == 7
