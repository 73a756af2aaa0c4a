"""Embedding spaces."""

from __future__ import annotations

from dataclasses import replace

from ddiseg.catalogue.embeddings import embedding_space
from fedd.segment import SMALL


def test_embedding_space__what_was_read_and_nothing_else() -> None:
    space = embedding_space("b", SMALL.to_dict())
    assert embedding_space("b", replace(SMALL, seed=7, members=2).to_dict()) == space
    for features in (
        replace(SMALL.features, blocks=(1, 3)),
        replace(SMALL.features, timestep=100),
        replace(SMALL.features, noise=1),
    ):
        assert embedding_space("b", replace(SMALL, features=features).to_dict()) != space
    assert embedding_space("c", SMALL.to_dict()) != space
