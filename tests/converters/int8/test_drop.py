"""How an artifact's drop is estimated from all artifacts that were measured."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.converters.int8.search.drop import DropEstimates, PlanFigures

RNG = np.random.default_rng(0)


def figures(noise: float, drop: float, error: float = 0.0) -> PlanFigures:
    return PlanFigures(noise, drop, [drop - error, drop + error])


def test_a_single_artifact_has_its_own_drop_and_error() -> None:
    estimates = DropEstimates(0.01)
    estimates.add("one", figures(0.1, 0.004, error=0.002))
    found = estimates.at(0.1)
    assert found.drop == pytest.approx(0.004)
    assert found.error == pytest.approx(0.002)
    assert estimates.within("one")


def test_a_lucky_metric_is_not_believed_where_others_as_noisy_drop() -> None:
    estimates = DropEstimates(0.01)
    for index in range(5):
        estimates.add(index, figures(0.1, 0.02))
    estimates.add("lucky", figures(0.1, -0.002))
    assert not estimates.within("lucky")


def test_an_artifact_that_drops_too_far_itself_is_outside_though_others_as_noisy_are_not() -> None:
    estimates = DropEstimates(0.01)
    for index in range(9):
        estimates.add(index, figures(0.1, 0.001))
    estimates.add("unlucky", figures(0.1, 0.011))
    assert estimates.within(0)
    assert not estimates.within("unlucky")


def test_many_artifacts_tell_more_than_one() -> None:
    estimates = DropEstimates(0.01)
    noises = np.geomspace(0.02, 0.08, 12)
    for index, noise in enumerate(noises):
        own = RNG.normal(0, 0.004, 100)  # what differs between artifacts as noisy
        estimates.add(index, PlanFigures(float(noise), float(0.1 * noise), (0.1 * noise + own).tolist()))
    assert estimates.at(0.04).drop == pytest.approx(0.004)
    assert estimates.at(0.04).error < 0.002


def test_artifacts_with_other_noise_have_no_part() -> None:
    estimates = DropEstimates(0.01)
    estimates.add("loud", figures(1.0, 0.3))
    estimates.add("quiet", figures(0.1, 0.001))
    assert estimates.at(0.1).drop == pytest.approx(0.001)
    assert estimates.at(0.01).drop == np.inf


def test_an_artifact_that_cannot_run_has_no_part() -> None:
    estimates = DropEstimates(0.01)
    estimates.add("broken", PlanFigures(np.inf, np.inf, []))
    assert not estimates.within("broken")
    assert estimates.at(1.0).drop == np.inf


def test_the_most_noise_uses_the_limit_up() -> None:
    estimates = DropEstimates(0.01)
    estimates.add("one", figures(0.1, 0.004))
    most = estimates.most_noise(0.1)
    assert estimates.at(most).drop == pytest.approx(0.0075, rel=0.05), "a quarter of the limit is kept back"


def test_answers_without_any_noise_are_within() -> None:
    estimates = DropEstimates(0.01)
    estimates.add("equal", figures(0.0, 0.0))
    assert estimates.within("equal")
