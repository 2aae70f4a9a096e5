"""A search that was killed goes on where it was, for a network of the user's own that int8 does harm to."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecnn import Bundle
from edgecnn.bundle.evidence import QuantizationEvidence
from edgecnn.cli._main import main
from edgecnn.formats import FORMATS
from edgecnn.results import Classification
from tests.builders.formats import require_format
from tests.builders.processes import start_edgecnn

pytestmark = pytest.mark.torch

SIZE_PX = 32

# Tells bright pictures from dark ones and left from right. One channel between `spread` and `gather` is ten thousand
# times as large as the others, which 8 bits for all channels cannot hold: one of the two must stay float.
NETWORK = f"""
import torch
from torch import nn
from edgecnn import Classify, FrameSpec, TrainedModel


class Halves(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.look = nn.Conv2d(3, 8, 3, padding=1)
        self.spread = nn.Conv2d(8, 8, 1)
        self.gather = nn.Conv2d(8, 8, 1)
        self.more = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(16, 4)
        with torch.no_grad():
            self.spread.weight[0] *= 1e4
            self.gather.weight[:, 0] = 0

    def forward(self, x):
        y = torch.relu(self.gather(torch.nn.functional.elu(self.spread(torch.relu(self.look(x))))))
        y = torch.relu(self.more(y))
        return self.head(torch.cat([y[..., :16].mean((2, 3)), y[..., 16:].mean((2, 3))], 1) * 10)


def factory():
    frame = FrameSpec(height_px={SIZE_PX}, width_px={SIZE_PX})
    return TrainedModel(module=Halves().eval(), frame=frame, task=Classify(labels=("a", "b", "c", "d")))
"""

CONVERT = ["convert", "net:factory", "--to", "FORMAT", "--out", "net.edge"]
QUANTIZE = [
    "quantize",
    "net.edge",
    "--to",
    "FORMAT",
    "--data",
    "train",
    "--max-drop",
    "0.05",
    "--keep-slower",
    "--json",
]


def words_for(format_name: str, words: list[str]) -> list[str]:
    return [format_name if word == "FORMAT" else word for word in words]


def write_pictures(folder: Path, format_name: str) -> None:
    """Blobs of all brightnesses, in folders by what the float artifact says of them."""
    from edgecnn import open_runner

    rng = np.random.default_rng(0)
    with open_runner(folder / "net.edge", format=format_name) as runner:
        for label in runner.task.labels:
            (folder / "train" / label).mkdir(parents=True)
        for number in range(48):
            coarse = rng.integers(0, 256, (4, 4, 3)) * rng.uniform(0.2, 1)
            picture = coarse.repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
            result = runner(picture)
            assert isinstance(result, Classification)
            label = result.labels[result.class_ids[0]]
            cv2.imwrite(str(folder / "train" / label / f"{number}.png"), picture)


@pytest.mark.parametrize("format_name", [row.name for row in FORMATS if row.int8_writer is not None])
def test_a_killed_search_goes_on_where_it_was(
    format_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_format(format_name)
    (tmp_path / "net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("net", None)
    assert main(words_for(format_name, CONVERT)) == 0
    write_pictures(tmp_path, format_name)
    before = {path.name: path.read_bytes() for path in (tmp_path / "net.edge").iterdir()}

    journal = tmp_path / ".net.edge.search" / f"{format_name}.jsonl"
    process = start_edgecnn(words_for(format_name, QUANTIZE), tmp_path)
    deadline = time.monotonic() + 200
    while not (journal.exists() and '"metric"' in journal.read_text()) and process.poll() is None:
        assert time.monotonic() < deadline, "nothing was measured"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
    assert {path.name: path.read_bytes() for path in (tmp_path / "net.edge").iterdir()} == before

    # A minute that nobody spent shows whether the next run reads what this one wrote down.
    with journal.open("a") as file:
        file.write('\n{"what":"minutes","of":"","value":1.5}\n{"what":"metric","of')  # a line that the kill cut short

    capsys.readouterr()
    assert main(words_for(format_name, QUANTIZE)) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["refused"] == []
    artifact = Bundle.open(tmp_path / "net.edge").artifact(format_name, "int8")
    evidence = artifact.evidence.quantization
    assert isinstance(evidence, QuantizationEvidence)
    assert evidence.search is not None
    assert evidence.search.minutes >= 1, "the minutes of the killed run count"
    assert set(evidence.float_layers) & {"spread", "gather"}
    assert len(evidence.float_layers) < 5, "the rest is int8 as far as that is faster"
    assert evidence.search.drop <= 0.05
    assert document["artifacts"][-1]["drop"] <= 0.05
    assert document["artifacts"][-1]["int8_mac_share"] == evidence.int8_mac_share
    assert not journal.parent.exists()
