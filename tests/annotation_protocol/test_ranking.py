"""Seeded ranks: what was sampled with a seed is sampled again, whatever the program's version."""

from __future__ import annotations

from hashlib import sha256

from annotation_protocol.ranking import first_bits, seeded_rank


def test_seeded_rank__same_key_same_order_for_ever() -> None:
    assert seeded_rank(7, "abc") == sha256(b"7 abc").hexdigest()
    assert seeded_rank("control", 7, "abc") == sha256(b"control 7 abc").hexdigest()
    names = [f"{n}.png" for n in range(50)]
    orders = {tuple(sorted(names, key=lambda name: seeded_rank(seed, name))) for seed in range(9)}
    assert len(orders) == 9


def test_first_bits__of_the_seeded_rank_of_each_name() -> None:
    names = [f"{n}ä.png" for n in range(50)]
    expected = [int(seeded_rank(7, name)[:15], 16) for name in names]
    assert first_bits(7, names).tolist() == expected
    assert first_bits(7, []).tolist() == []
