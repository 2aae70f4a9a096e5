"""Bags as a camera's driver would record them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecnn.photographs import photographs


@pytest.fixture(scope="session")
def jazzy() -> Any:
    """Classes of ROS 2 Jazzy."""
    pytest.importorskip("rosbags", reason="needs rosbags: pip install 'edgecnn[ros]'")
    from edgecnn_ros.replay import BagMessages

    return BagMessages("jazzy")


@pytest.fixture(scope="session")
def bag(tmp_path_factory: pytest.TempPathFactory, jazzy: Any) -> Path:
    """The photographs that ship."""
    from .bags import write_bag

    return write_bag(tmp_path_factory.mktemp("bags") / "in.bag", jazzy, list(photographs().values()))
