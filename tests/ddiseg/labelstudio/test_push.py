from __future__ import annotations
import time
import numpy as np
from tests.ddiseg.labelstudio.studio import *


def test_push__smoke(studio: Studio) -> None:
    rows = studio.add_images(3)
    studio.predict(rows[:2])
    t = time.perf_counter()
    done = studio.push()
    print(time.perf_counter() - t)
    print([ (r.method, r.path, r.status) for r in studio.server.requests])
    assert told(done.outcomes) == [("1.png", "added"), ("2.png", "added"), ("3.png", "added")]
    studio.check()
    n = len(studio.server.requests)
    t = time.perf_counter()
    done = studio.push()
    print(time.perf_counter() - t)
    print([ (r.method, r.path, r.status) for r in studio.server.requests[n:]])
    assert told(done.outcomes) == [("1.png", "unchanged"), ("2.png", "unchanged"), ("3.png", "unchanged")]
    studio.submit_unchanged(studio.task(rows[0]))
    n = len(studio.server.requests)
    t = time.perf_counter()
    done=studio.pull()
    print(time.perf_counter() - t)
    print([ (r.method, r.path, r.status) for r in studio.server.requests[n:]])
    studio.check(all_pulled=True)
    print(done)
    t = time.perf_counter()
    d=studio.push_reviews()
    print(time.perf_counter() - t)
    studio.decide(studio.review_task(rows[0]), "accept")
    print(studio.pull_reviews())
    print(studio.states())
    studio.check(all_pulled=True)
    assert 0
