"""The support matrix: complete, of the networks that ship, and measured again when one of them changes."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from edgecnn.formats import FORMATS
from tests.builders.repository import REPOSITORY

pytestmark = pytest.mark.torch

from benchmarks.support import NETWORKS, RESULTS, TOGETHER, measured  # noqa: E402 - it imports torch

PRECISIONS = tuple(itertools.chain(*TOGETHER))
FOUND = json.loads(RESULTS.read_text(encoding="utf-8"))


def row_of(task: str, format_name: str, precision: str) -> dict[str, Any]:
    (row,) = (
        row for row in FOUND["rows"] if (row["task"], row["format"], row["precision"]) == (task, format_name, precision)
    )
    return dict(row)


@pytest.mark.parametrize(
    ("task", "format_name", "precision"), list(itertools.product(NETWORKS, FORMATS.built_in(), PRECISIONS))
)
def test_each_cell_has_a_result_or_a_reason(task: str, format_name: str, precision: str) -> None:
    row = row_of(task, format_name, precision)
    if "refused" in row:
        record = FORMATS.get(format_name)
        assert record.int8_writer is not None or record.why_no_int8 in row["refused"]
    else:
        assert row["devices"], "the artifact was written, and no device ran it"


@pytest.mark.parametrize("task", [task for task, (name, _) in NETWORKS.items() if name.startswith("default-")])
def test_the_results_are_of_the_networks_that_ship(task: str) -> None:
    import edgecnn
    from edgecnn.flow.stages import identity_of

    name, weights = NETWORKS[task]
    digest = identity_of(edgecnn.load_model(name, weights=weights))
    others = {
        (row["format"], row["precision"]) for row in FOUND["rows"] if row["task"] == task and row["digest"] != digest
    }
    assert not others, "the network has changed: python benchmarks/support.py --missing, then python docs/generate.py"


def test_a_network_that_has_changed_is_measured_again() -> None:
    rows = [
        {"task": "detect", "format": "onnx", "precision": "fp32", "digest": "today"},
        {"task": "detect", "format": "onnx", "precision": "fp16", "digest": "yesterday"},
        {"task": "detect", "format": "onnx", "precision": "int8"},  # a result from before rows had digests
        {"task": "segment", "format": "onnx", "precision": "fp32", "digest": "today"},
    ]
    assert measured(rows, {"detect": "today"}) == {("detect", "onnx", "fp32")}


def test_the_page_gives_the_reason_of_the_formats_record() -> None:
    page = (REPOSITORY / "docs" / "reference" / "support.md").read_text(encoding="utf-8")
    reasons = [row.why_no_int8 for row in FORMATS if row.int8_writer is None]
    assert reasons and all(reason in page for reason in reasons)
