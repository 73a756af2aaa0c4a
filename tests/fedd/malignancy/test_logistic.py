from __future__ import annotations

import numpy as np
import pytest

from fedd.malignancy.logistic import fit


def _data(images: int, columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(3, 2, (images, columns))
    logits = (features[:, 0] - 3) * 0.8 + rng.logistic(size=images)
    return features, logits > 0


@pytest.mark.parametrize(("images", "columns"), [(80, 5), (30, 90)])
def test_fit__that_of_scikit_learn(images: int, columns: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, truth = _data(images, columns)
    found = fit(features, truth, np.ones(columns), 0.05)
    scaled = (features - features.mean(0)) / features.std(0)
    # scikit-learn's loss is a sum: C = 1 / (strength x images).
    other = linear_model.LogisticRegression(C=1 / (0.05 * images), tol=1e-10, max_iter=10_000)
    expected = other.fit(scaled, truth).predict_proba(scaled)[:, 1]
    np.testing.assert_allclose(found.probabilities(features), expected, atol=1e-5)


def test_fit__minimum_of_the_penalised_loss() -> None:
    features, truth = _data(40, 3)
    found = fit(features, truth, np.ones(3), 0.1)
    scale = features.std(0)

    def loss(weights: np.ndarray, bias: float) -> float:
        logits = features @ weights + bias
        fitted = (np.logaddexp(0, logits) - truth * logits).mean()
        return float(fitted + 0.1 / 2 * ((weights * scale) ** 2).sum())

    best = loss(found.weights, found.bias)
    for column in range(3):
        for step in (-1e-3, 1e-3):
            moved = found.weights.copy()
            moved[column] += step
            assert loss(moved, found.bias) > best
    assert min(loss(found.weights, found.bias + step) for step in (-1e-3, 1e-3)) > best


def test_fit__units_of_a_column_make_no_difference() -> None:
    features, truth = _data(40, 4)
    in_mm = features * [1, 1000, 1, 1]
    expected = fit(features, truth, np.ones(4), 0.01).probabilities(features)
    found = fit(in_mm, truth, np.ones(4), 0.01).probabilities(in_mm)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_fit__a_constant_column_has_no_weight() -> None:
    features, truth = _data(40, 3)
    features[:, 1] = 7
    assert fit(features, truth, np.ones(3), 0.01).weights[1] == 0


def test_fit__separable_classes_end() -> None:
    features = np.linspace(-1, 1, 20)[:, None]
    found = fit(features, features[:, 0] > 0, np.ones(1), 1e-6)
    assert ((found.probabilities(features) > 0.5) == (features[:, 0] > 0)).all()
    assert np.isfinite(found.weights).all()


def test_fit__columns_that_the_caller_scaled_keep_their_scale() -> None:
    features, truth = _data(60, 2)
    small = features * [1, 1e-3]
    standardised = fit(small, truth, np.ones(2), 0.1)
    raw = fit(small[:, ::-1], truth, np.ones(2), 0.1, raw=1)
    assert abs(raw.weights[1] - standardised.weights[0]) > 1e-3, "not divided by its deviation of 2"
    np.testing.assert_allclose(raw.weights[0] * 1e-3, standardised.weights[1] * 1e-3, rtol=0.5)
