"""How many cores a process may use: affinity, and quotas of control groups, on trees of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgecnn import processor
from edgecnn.processor import board_model, cores_quota, default_threads

V2_MOUNT = "25 1 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"


def tree(root: Path, *, own: str, mounts: str | None, **files: str) -> Path:
    """A machine: /proc/self of a process, and files of its control groups ("/" in names is "__")."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    if mounts is not None:
        (root / "proc/self/mountinfo").write_text(mounts)
    for name, text in files.items():
        path = (
            root / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cpu_cfs", "cpu.cfs")
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v1(root: Path, group: str, quota: str, period: str = "100000") -> None:
    """A version 1 group's limit."""
    folder = root / "sys/fs/cgroup/cpu,cpuacct" / group
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text(f"{period}\n")


def test_a_limit_of_the_process_group_is_respected(tmp_path: Path) -> None:
    root = tree(tmp_path, own="0::/system.slice/net.service\n", mounts=V2_MOUNT)
    group = root / "sys/fs/cgroup/system.slice/net.service"
    group.mkdir(parents=True)
    assert cores_quota(root) is None
    (group / "cpu.max").write_text("150000 100000\n")
    assert cores_quota(root) == 1.5


def test_the_tightest_of_all_groups_above_it_holds(tmp_path: Path) -> None:
    root = tree(tmp_path, own="0::/a/b/c\n", mounts=V2_MOUNT)
    for group, limit in (("a", "max 100000"), ("a/b", "200000 100000"), ("a/b/c", "400000 100000")):
        folder = root / "sys/fs/cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(limit)
    assert cores_quota(root) == 2


def test_in_a_container_the_root_that_is_seen_is_its_own_group(tmp_path: Path) -> None:
    root = tree(tmp_path, own="0::/\n", mounts=V2_MOUNT, cpu_max="50000 100000\n")
    assert cores_quota(root) == 0.5


def test_a_group_outside_of_what_is_seen_does_not_lead_out(tmp_path: Path) -> None:
    root = tree(tmp_path, own="0::/../neighbour\n", mounts=V2_MOUNT, cpu_max="300000 100000\n")
    (root / "sys/fs/neighbour").mkdir()
    (root / "sys/fs/neighbour/cpu.max").write_text("100000 100000")
    assert cores_quota(root) == 3


def test_version_1_is_heeded(tmp_path: Path) -> None:
    own = "4:cpu,cpuacct:/docker/abc\n3:cpuset:/docker/abc\n0::/\n"
    root = tree(tmp_path, own=own, mounts=V1_MOUNT.format(root="/"))
    v1(root, "docker/abc", "-1")
    assert cores_quota(root) is None
    v1(root, "docker/abc", "200000")
    assert cores_quota(root) == 2
    v1(root, "docker", "100000", "200000")
    assert cores_quota(root) == 0.5


def test_in_a_version_1_container_the_mount_is_its_own_group(tmp_path: Path) -> None:
    root = tree(tmp_path, own="4:cpu,cpuacct:/docker/abc\n", mounts=V1_MOUNT.format(root="/docker/abc"))
    v1(root, "", "150000")
    assert cores_quota(root) == 1.5
    v1(root, "c", "100000")  # a group of somebody else in it
    assert cores_quota(root) == 1.5


def test_both_versions_at_once_are_heeded(tmp_path: Path) -> None:
    mounts = V1_MOUNT.format(root="/") + V2_MOUNT.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    root = tree(tmp_path, own="4:cpu,cpuacct:/a\n0::/b\n", mounts=mounts, unified__b__cpu_max="300000 100000")
    assert cores_quota(root) == 3
    v1(root, "a", "200000")
    assert cores_quota(root) == 2


def test_a_mount_with_a_space_in_its_path_is_found(tmp_path: Path) -> None:
    mounts = V2_MOUNT.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/my\\040groups ")
    root = tree(tmp_path, own="0::/\n", mounts=mounts)
    (root / "sys/fs/cgroup/my groups").mkdir(parents=True)
    (root / "sys/fs/cgroup/my groups/cpu.max").write_text("100000 100000")
    assert cores_quota(root) == 1


def test_without_a_list_of_mounts_the_usual_places_are_read(tmp_path: Path) -> None:
    root = tree(
        tmp_path, own="0::/a\n2:cpu:/\n", mounts=None, a__cpu_max="200000 100000", cpu__cpu_cfs_quota_us="100000"
    )
    assert cores_quota(root) == 2
    (root / "sys/fs/cgroup/cpu/cpu.cfs_period_us").write_text("100000")
    assert cores_quota(root) == 1


@pytest.mark.parametrize("limit", ["", "max", "max 100000", "x 100000", "100000 0", "0 100000", "-5 100000", "1 2 3"])
def test_anything_but_a_limit_counts_as_no_limit(limit: str, tmp_path: Path) -> None:
    assert cores_quota(tree(tmp_path, own="0::/\n", mounts=V2_MOUNT, cpu_max=limit)) is None


@pytest.mark.parametrize("own", ["", "nonsense\n", "0::\n", "::::\n"])
def test_a_process_with_unknown_groups_has_no_limit_of_them(own: str, tmp_path: Path) -> None:
    assert cores_quota(tree(tmp_path, own=own, mounts=V2_MOUNT)) is None


def test_without_proc_there_is_no_limit(tmp_path: Path) -> None:
    assert cores_quota(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("cores", "quota", "threads"), [(8, None, 8), (8, 2.5, 2), (8, 0.3, 1), (2, 16.0, 2), (4, 4.0, 4)]
)
def test_threads_are_what_both_affinity_and_quota_allow(
    cores: int, quota: float | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "allowed_cores", lambda: list(range(cores)))
    monkeypatch.setattr(processor, "cores_quota", lambda: quota)
    assert default_threads() == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity")
def test_affinity_is_heeded_here() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert default_threads() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_board_is_what_its_firmware_says(tmp_path: Path) -> None:
    assert board_model(tmp_path) == ""
    model = tmp_path / "sys/firmware/devicetree/base/model"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    assert board_model(tmp_path) == "Raspberry Pi 4 Model B Rev 1.4"
