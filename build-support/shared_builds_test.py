from __future__ import annotations

from shared_builds import complaints

FILLED = """\
04:31:58.11 [INFO] Starting: Build the layer images:os from 13 Debian packages
04:32:06.97 [INFO] Completed: Build the layer images:os from 13 Debian packages
04:34:51.43 [INFO] Counters:
  local_execution_requests: 1
  remote_cache_requests: 1
  remote_cache_requests_cached: 0
  remote_cache_write_successes: 1
"""

EMPTY = """\
10:21:15.53 [INFO] Wrote dist/images/py311/image.tar
10:21:15.54 [INFO] Counters:
  local_execution_requests: 0
  remote_cache_requests: 1
  remote_cache_requests_cached: 1
  remote_cache_write_successes: 0
"""


def test_all_from_the_cache():
    assert not list(complaints(FILLED, EMPTY))


def test_a_layer_is_built_twice():
    assert list(complaints(FILLED, FILLED)) == [
        "the cache lacks some of what the second machine asked for",
        "the second machine ran processes of its own: 1",
        "the second machine started: Build the layer images:os from 13 Debian packages",
    ]


def test_nothing_was_shared():
    assert list(complaints(EMPTY, EMPTY)) == ["the first machine wrote nothing to the cache"]
