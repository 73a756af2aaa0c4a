"""kill -9 at any moment of a round: no mask is lost or doubled, and the next round continues."""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from ddiseg.catalogue import Purpose, State
from ddiseg.workspace.verify import verify
from tests.ddiseg.labelstudio.studio import Studio
from tests.ddiseg.loop.killed_rounds import Site, run

#: DDISEG_ROUND_KILLS=200 for as many as before a release.
KILLS = int(os.environ.get("DDISEG_ROUND_KILLS", "8"))

pytestmark = pytest.mark.process


def test_round__killed_at_random_moments(
    studio: Studio, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(studio.workspace.root, studio.server.url, studio.server.token, tiny_weights)
    rng = random.Random(0)
    seconds = run(site)
    assert seconds is not None
    killed, steps_done = 0, Counter[int]()
    for _ in range(KILLS):
        _work(studio, rng)
        before = _rounds(studio)
        ended_after = run(site, kill_after=rng.uniform(0, 1.1 * seconds))
        if ended_after is None:
            killed += 1
            begun = _rounds(studio) > before
            steps_done[len(studio.catalogue.rounds.last(1)[0].steps) if begun else 0] += 1
        else:
            seconds = ended_after  # rounds get longer and shorter
        _check_masks(studio)
        assert verify(studio.workspace).problems == []
    assert run(site) is not None
    studio.check(all_pulled=True)
    _check_masks(studio)
    assert verify(studio.workspace).problems == []
    with capsys.disabled():
        sys.stdout.write(
            f"\n{killed} of {KILLS} rounds killed, by steps done: {sorted(steps_done.items())}\n"
        )
    assert killed > KILLS / 3


def _work(studio: Studio, rng: random.Random) -> None:
    """People go on: an annotator hands in, a reviewer accepts or sends back, work is reopened."""
    known = studio.catalogue.tasks.projects(studio.connection.server)
    if len(known) < len(Purpose):
        return
    for image in studio.catalogue.images.select():
        chance = rng.random()
        tasks = {t.image_id: t.remote_id for t in studio.tasks()}
        if image.state == State.IN_LABELLING and image.id in tasks and chance < 0.4:
            studio.submit_unchanged(tasks[image.id] or 0)
        elif image.state == State.SUBMITTED and chance < 0.5:
            reviews = [t for t in studio.tasks(Purpose.REVIEW) if t.image_id == image.id]
            if reviews:
                verdict = "accept" if chance < 0.35 else "reject"
                studio.decide(reviews[-1].remote_id or 0, verdict, "see the rim")
        elif image.state == State.ACCEPTED and chance < 0.05:
            studio.catalogue.images.reopen(image.id, "manager")


def _rounds(studio: Studio) -> int:
    last = studio.catalogue.rounds.last(1)
    return last[0].id if last else 0


def _check_masks(studio: Studio) -> None:
    """Every accepted mask is there, and no mask of a person or a model is there twice."""
    assert studio.catalogue.events.contradictions() == []
    rows = studio.catalogue.masks.all()
    drawn = [(m.image_id, m.annotator, m.content_hash) for m in rows if m.annotator is not None]
    predicted = [(m.image_id, m.model_version_id) for m in rows if m.model_version_id is not None]
    assert len(drawn) == len(set(drawn))
    assert len(predicted) == len(set(predicted))
    accepted = {i.id for i in studio.catalogue.images.select(states=[State.ACCEPTED])}
    assert accepted == set(studio.catalogue.masks.accepted())
