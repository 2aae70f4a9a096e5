"""The search for layers to keep float, on networks made of numbers: what each layer costs is known."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn.bundle import LayerRecord
from edgecnn.converters.int8.search.journal import SearchJournal
from edgecnn.converters.int8.search.objective import SearchResult
from edgecnn.converters.int8.search.plan import Plan, RangeMethod
from edgecnn.converters.int8.search.search import search
from edgecnn.converters.int8.search.without_labels import search_without_labels

FLOAT_METRIC = 0.5


class MadeUp:
    """Each int8 layer costs so much of the metric; better ranges cost less."""

    range_methods: Sequence[RangeMethod] = ("min-max", "percentile")
    corrects_weights = True
    equalisable: Sequence[str] = ()
    error = 0.0
    gains: Mapping[str, float] = {}  # of a layer in int8, 1 where it isn't named

    def __init__(
        self, costs: Mapping[str, float], *, best: str = "min-max", unmakeable: frozenset[str] = frozenset()
    ) -> None:
        self.layers: Sequence[str] = tuple(costs)
        self.costs, self.best, self.unmakeable = costs, best, unmakeable
        self.measured: list[Plan] = []
        self.kill_after: int | None = None

    def damage(self, plan: Plan) -> float:
        if plan.int8_layers & self.unmakeable:
            return float("inf")
        factor = 1.0 if plan.ranges == self.best and plan.correct_weights else 1.5
        left = 0.1  # of an equalised layer's damage
        return factor * sum(self.costs[name] * (left if name in plan.equalised else 1.0) for name in plan.int8_layers)

    def metric(self, plan: Plan) -> float:
        self.measured.append(plan)
        if self.kill_after is not None and len(self.measured) > self.kill_after:
            raise KeyboardInterrupt
        return FLOAT_METRIC - self.damage(plan)

    def drops(self, plan: Plan) -> Sequence[float]:
        drop = self.damage(plan)
        return [drop - self.error, drop + self.error]

    def relative_latency(self, plan: Plan) -> float:
        return 1 - 0.5 * sum(self.gains.get(name, 1.0) for name in plan.int8_layers) / len(self.layers)


def layers(costs: Mapping[str, float], *, macs: int = 100, heads: tuple[str, ...] = ()) -> list[LayerRecord]:
    return [LayerRecord(name=name, kind="convolution", macs=macs, weights=name, head=name in heads) for name in costs]


def found(
    made_up: MadeUp, records: list[LayerRecord], journal: SearchJournal | None = None, **options: float
) -> SearchResult:
    return search(
        made_up,
        records,
        float_metric=FLOAT_METRIC,
        max_drop=options.get("max_drop", 0.01),
        budget_minutes=options.get("budget_minutes", 10),
        journal=journal or SearchJournal(),
    )


def test_a_network_that_takes_no_harm_is_all_int8_after_one_measurement() -> None:
    costs = dict.fromkeys("abcdef", 1e-4)
    made_up = MadeUp(costs)
    result = found(made_up, layers(costs))
    assert result.plan.int8_layers == frozenset("abcdef")
    assert result.within
    assert len(made_up.measured) == 1


def test_the_layers_that_do_the_damage_stay_float_and_no_other() -> None:
    costs = {f"layer {i}": 0.1 if i in (3, 11, 17) else 1e-4 for i in range(20)}
    result = found(MadeUp(costs), layers(costs))
    assert result.within
    assert set(costs) - result.plan.int8_layers == {"layer 3", "layer 11", "layer 17"}
    assert set(result.damage) == set(costs)


def test_better_ranges_are_taken_before_a_layer_is_given_up() -> None:
    costs = dict.fromkeys("abcde", 0.0014)  # 0.007 with the right ranges, 0.0105 with the wrong ones
    result = found(MadeUp(costs, best="percentile"), layers(costs))
    assert result.plan.ranges == "percentile"
    assert result.plan.correct_weights
    assert result.plan.int8_layers == frozenset("abcde")


class BetterInPart(MadeUp):
    """With every layer in int8, "min-max" seems the better recipe; with some of them, "percentile" is."""

    def metric(self, plan: Plan) -> float:
        each = 0.001 if plan.ranges == "percentile" else 0.002
        everything = {"min-max": 0.05, "percentile": 0.06}[plan.ranges]
        return FLOAT_METRIC - (everything if plan.int8_layers == set(self.layers) else each * len(plan.int8_layers))


def test_a_recipe_that_seems_worse_with_every_layer_is_tried_with_some_of_them() -> None:
    costs = {f"layer {i}": 0.001 for i in range(48)}
    made_up = BetterInPart(costs)
    made_up.corrects_weights = False
    result = found(made_up, layers(costs))
    assert result.within
    assert result.plan.ranges == "percentile"
    assert len(result.plan.int8_layers) == 7


class TrainedForInt8(MadeUp):
    """What it was trained for answers best, and is furthest from the float network, which training left behind."""

    range_methods = ("min-max", "learned")

    def metric(self, plan: Plan) -> float:
        self.measured.append(plan)
        as_trained = plan.ranges == "learned" and not plan.correct_weights
        return FLOAT_METRIC + (0.02 if as_trained else 0.01)


def test_a_network_that_was_trained_for_int8_is_taken_as_it_was_trained_where_that_answers_best() -> None:
    costs = dict.fromkeys("abc", 0.001)
    made_up = TrainedForInt8(costs)
    result = found(made_up, layers(costs))
    assert result.plan.ranges == "learned" and not result.plan.correct_weights
    assert len(made_up.measured) == 2, "beside the recipe with the least noise"


@pytest.mark.parametrize("worth", [100, 1])
def test_what_brings_the_most_for_its_noise_is_given_back_first(worth: int) -> None:
    costs = {"head": 2e-3, "other head": 2e-3, "harmful": 0.1, "rest": 0.004}
    records = [
        LayerRecord(name=name, kind="convolution", macs=macs, weights=name, head="head" in name)
        for name, macs in {"head": 50, "other head": worth, "harmful": 1000, "rest": 1000}.items()
    ]
    result = found(MadeUp(costs), records)  # the limit has room for one head
    assert result.plan.int8_layers == ({"other head", "rest"} if worth == 100 else {"head", "rest"})


def test_layers_without_counted_multiply_adds_are_searched_too() -> None:
    costs = {"a": 0.1, "b": 1e-4, "head": 1e-4}
    result = found(MadeUp(costs), layers(costs, macs=0, heads=("head",)))
    assert result.within
    assert "a" not in result.plan.int8_layers


def test_heads_are_kept_float_first() -> None:
    costs = dict.fromkeys("abcdefgh", 0.002)
    result = found(MadeUp(costs), layers(costs, heads=("d", "h")))
    assert result.within
    assert not result.plan.int8_layers & {"d", "h"}


@pytest.mark.parametrize(("cost", "given_back"), [(1e-4, True), (0.004, True), (0.006, False)])
def test_layers_are_given_back_until_the_limit_is_used_up(cost: float, given_back: bool) -> None:
    costs = {"head": cost, "harmful": 0.1, "rest": 0.003}
    result = found(MadeUp(costs), layers(costs, heads=("head",)))
    assert result.plan.int8_layers == ({"head", "rest"} if given_back else {"rest"})


@pytest.mark.parametrize(("error", "kept_float"), [(0.0, 1), (0.0025, 2), (0.004, 3)])
def test_the_less_is_known_of_the_drop_the_more_stays_float(error: float, kept_float: int) -> None:
    costs = dict.fromkeys("abcde", 0.0018)  # 0.009 together, of 0.01
    made_up = MadeUp(costs)
    made_up.error = error
    result = found(made_up, layers(costs))
    assert result.within
    assert len(costs) - len(result.plan.int8_layers) == kept_float


def test_a_layer_is_given_back_by_its_noise_and_not_by_a_lucky_metric() -> None:
    """One of many attempts is within the limit by luck."""

    class Lucky(MadeUp):
        def metric(self, plan: Plan) -> float:
            return FLOAT_METRIC if "loud" in plan.int8_layers and len(plan.int8_layers) == 2 else super().metric(plan)

    costs = {"loud": 0.05, "harmful": 0.1, "rest": 0.003}
    result = found(Lucky(costs), layers(costs, heads=("loud",)))
    assert result.plan.int8_layers == {"rest"}


def test_the_worst_layers_are_equalised_before_one_is_given_up_and_no_more_than_it_takes() -> None:
    costs = {f"layer {i}": 0.02 if i in (3, 11) else 1e-4 for i in range(20)}
    made_up = MadeUp(costs)
    made_up.equalisable = tuple(costs)
    result = found(made_up, layers(costs))
    assert result.within
    assert result.plan.int8_layers == set(costs)
    assert result.plan.equalised == {"layer 3", "layer 11"}


def test_where_equalising_is_not_enough_layers_stay_float_too() -> None:
    costs = {f"layer {i}": 0.1 if i in (3, 11, 17) else 1e-4 for i in range(20)}
    made_up = MadeUp(costs)
    made_up.equalisable = ("layer 3",)
    result = found(made_up, layers(costs))
    assert result.within
    assert set(costs) - result.plan.int8_layers <= {"layer 11", "layer 17", "layer 3"}
    assert {"layer 11", "layer 17"}.isdisjoint(result.plan.int8_layers)


def test_of_what_is_within_the_limit_the_fastest_is_taken() -> None:
    costs = dict.fromkeys("abcd", 1e-4)
    made_up = MadeUp(costs)
    made_up.gains = dict.fromkeys("cd", -0.5)  # slower than in float, as depthwise layers often are
    kinds = {"c": "depthwise", "d": "depthwise"}
    records = [LayerRecord(name=name, kind=kinds.get(name, "convolution"), macs=100, weights=name) for name in costs]
    assert found(made_up, records).plan.int8_layers == {"a", "b"}
    made_up.gains = {}
    assert found(made_up, records).plan.int8_layers == set(costs), "where nothing is slower, all of it"


def test_if_nothing_is_within_the_limit_the_best_is_reported() -> None:
    costs = dict.fromkeys("abc", 0.1)
    result = found(MadeUp(costs), layers(costs))
    assert not result.within
    assert result.plan.int8_layers
    assert result.metric is not None
    assert result.metric < FLOAT_METRIC - 0.01


def test_a_layer_that_cannot_be_int8_at_all_stays_float() -> None:
    costs = dict.fromkeys("abcdefgh", 1e-4)
    result = found(MadeUp(costs, unmakeable=frozenset("c")), layers(costs))
    assert result.within
    assert result.plan.int8_layers == frozenset("abdefgh")


def test_a_budget_that_is_used_up_gives_the_best_so_far() -> None:
    costs = dict.fromkeys("abc", 0.1)
    made_up = MadeUp(costs)
    result = found(made_up, layers(costs), budget_minutes=1e-9)
    assert not result.complete
    assert result.metric is None
    assert made_up.measured == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 0.02), min_size=1, max_size=25), st.floats(0.001, 0.05))
def test_what_is_found_is_within_the_bound_or_says_that_it_is_not(damages: list[float], max_drop: float) -> None:
    costs = {f"layer {i}": cost for i, cost in enumerate(damages)}
    made_up = MadeUp(costs)
    result = found(made_up, layers(costs), max_drop=max_drop)
    assert result.metric == FLOAT_METRIC - made_up.damage(result.plan)
    assert result.within == (result.metric >= FLOAT_METRIC - 0.75 * max_drop)
    if min(damages) * 1.5 <= 0.75 * max_drop:
        assert result.within, "one harmless layer is enough for a plan"


def test_a_killed_search_goes_on_where_it_was(tmp_path: Path) -> None:
    costs = {f"layer {i}": 0.004 for i in range(16)}
    whole = MadeUp(costs)
    expected = found(whole, layers(costs))
    path = tmp_path / "search" / "onnx.jsonl"
    killed = MadeUp(costs)
    killed.kill_after = 3
    with pytest.raises(KeyboardInterrupt):
        found(killed, layers(costs), SearchJournal(path, about="network"))
    with path.open("a") as file:
        file.write('{"what":"metric","pl')  # the kill came while it wrote
    again = MadeUp(costs)
    result = found(again, layers(costs), SearchJournal(path, about="network"))
    assert result == expected
    assert not set(again.measured) & set(killed.measured[:3]), "what was measured is not measured again"
    assert len(again.measured) == len(whole.measured) - 3


def test_a_journal_about_another_network_is_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "onnx.jsonl"
    plan = Plan(int8_layers=frozenset("a"))
    SearchJournal(path, about="one").value("metric", plan, lambda _: 0.25)
    assert SearchJournal(path, about="one").known("metric", plan) == 0.25
    assert SearchJournal(path, about="other").known("metric", plan) is None


def _answer(value: float, plan: Plan) -> float:
    return value


def test_an_artifact_that_could_not_be_made_is_remembered_as_such(tmp_path: Path) -> None:
    path = tmp_path / "onnx.jsonl"
    plan = Plan(int8_layers=frozenset("a"))
    for what, value in [("damage", float("inf")), ("metric", float("-inf"))]:
        SearchJournal(path, about="one").value(what, plan, partial(_answer, value))
        assert SearchJournal(path, about="one").known(what, plan) == value


def test_without_labels_a_cheap_layer_that_does_most_of_the_damage_stays_float() -> None:
    costs = {f"layer {i}": 0.5 if i == 4 else 1e-3 for i in range(20)}
    result = search_without_labels(MadeUp(costs, best="percentile"), layers(costs), SearchJournal())
    assert set(costs) - result.plan.int8_layers == {"layer 4"}
    assert result.plan.ranges == "percentile"
    assert result.metric is None, "nobody measured it"
    assert set(result.damage) == set(costs)


def test_without_labels_no_more_layers_stay_float_than_little_noise_takes() -> None:
    costs = {f"layer {i}": 5e-4 if i < 6 else 1e-6 for i in range(100)}
    made_up = MadeUp(costs)
    result = search_without_labels(made_up, layers(costs), SearchJournal())
    kept = set(costs) - result.plan.int8_layers
    assert len(kept) == 4  # of six that all do as much
    assert made_up.damage(result.plan) <= 10**-2.8


def test_without_labels_a_network_with_little_noise_is_all_int8() -> None:
    costs = {f"layer {i}": 1e-3 if i == 4 else 1e-5 for i in range(20)}
    result = search_without_labels(MadeUp(costs), layers(costs), SearchJournal())
    assert result.plan.int8_layers == set(costs)


def test_without_labels_no_dear_layer_is_given_up() -> None:
    costs = {"large": 0.5, "small": 1e-4}
    records = [
        LayerRecord(name="large", kind="convolution", macs=10_000, weights="large"),
        LayerRecord(name="small", kind="convolution", macs=100, weights="small"),
    ]
    result = search_without_labels(MadeUp(costs), records, SearchJournal())
    assert result.plan.int8_layers == {"large", "small"}
