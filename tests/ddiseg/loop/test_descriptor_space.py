from __future__ import annotations

from dataclasses import replace

from ddiseg.loop.descriptor_space import descriptor_space
from fedd.segment import SMALL


def test_descriptor_space__what_was_read_and_nothing_else() -> None:
    space = descriptor_space("b", SMALL.to_dict())
    assert descriptor_space("b", replace(SMALL, seed=7, members=2).to_dict()) == space
    for features in (
        replace(SMALL.features, blocks=(1, 3)),
        replace(SMALL.features, timestep=100),
        replace(SMALL.features, noise=1),
    ):
        assert descriptor_space("b", replace(SMALL, features=features).to_dict()) != space
    assert descriptor_space("c", SMALL.to_dict()) != space
