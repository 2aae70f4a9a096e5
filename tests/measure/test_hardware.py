"""GPUs and NPUs, read from a /sys that a test made."""

from __future__ import annotations

from pathlib import Path

from edgecnn.measure.hardware import Hardware, find_hardware


def pci(root: Path, address: str, *, number: str, vendor: str, device: str, driver: str = "") -> None:
    folder = root / "sys/bus/pci/devices" / address
    folder.mkdir(parents=True)
    for name, text in (("class", number), ("vendor", vendor), ("device", device)):
        (folder / name).write_text(text + "\n")
    if driver:
        home = root / "sys/bus/pci/drivers" / driver
        home.mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(home)


def test_an_intel_laptop_has_a_gpu_and_an_npu(tmp_path: Path) -> None:
    pci(tmp_path, "0000:00:02.0", number="0x030000", vendor="0x8086", device="0x7d55", driver="i915")
    pci(tmp_path, "0000:00:0b.0", number="0x120000", vendor="0x8086", device="0x7d1d", driver="intel_vpu")
    pci(tmp_path, "0000:00:1f.3", number="0x040100", vendor="0x8086", device="0x7e28", driver="snd_hda_intel")
    assert find_hardware(tmp_path) == [
        Hardware(kind="gpu", name="Intel 0x7d55", driver="i915"),
        Hardware(kind="npu", name="Intel 0x7d1d", driver="intel_vpu"),
    ]


def test_a_gpu_without_a_driver_is_listed_without_one(tmp_path: Path) -> None:
    pci(tmp_path, "0000:01:00.0", number="0x030200", vendor="0x10de", device="0x2684")
    assert find_hardware(tmp_path) == [Hardware(kind="gpu", name="NVIDIA 0x2684", driver="")]


def test_a_virtual_screen_is_no_gpu(tmp_path: Path) -> None:
    pci(tmp_path, "0000:00:01.0", number="0x030000", vendor="0x1234", device="0x1111", driver="bochs-drm")
    assert find_hardware(tmp_path) == []


def test_a_raspberry_pi_has_a_gpu_on_its_chip(tmp_path: Path) -> None:
    device = tmp_path / "sys/devices/platform/v3d"
    (device / "of_node").mkdir(parents=True)
    (device / "of_node" / "compatible").write_text("brcm,2712-v3d\0")
    card = tmp_path / "sys/class/drm/card0"
    card.mkdir(parents=True)
    (card / "device").symlink_to(device)
    assert find_hardware(tmp_path) == [Hardware(kind="gpu", name="brcm,2712-v3d")]


def test_coral_on_usb_and_a_hexagon_are_npus(tmp_path: Path) -> None:
    usb = tmp_path / "sys/bus/usb/devices/1-1"
    usb.mkdir(parents=True)
    (usb / "idVendor").write_text("18d1\n")
    (usb / "idProduct").write_text("9302\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/fastrpc-cdsp").touch()
    assert [(found.kind, found.name) for found in find_hardware(tmp_path)] == [
        ("npu", "Google Coral USB Accelerator"),
        ("npu", "Qualcomm Hexagon"),
    ]


def test_an_empty_machine_has_nothing(tmp_path: Path) -> None:
    assert find_hardware(tmp_path) == []
