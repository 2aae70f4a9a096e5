"""Lists the GPUs and NPUs that the system sees, usable by a runtime or not: read from /sys and /dev."""

from __future__ import annotations

from pathlib import Path

import msgspec

# Source: the PCI ID database (pci.ids), classes 03 (display controller) and 12 (processing accelerator).
_DISPLAY, _ACCELERATOR = "03", "12"
_MAKERS = {
    "0x8086": "Intel",
    "0x10de": "NVIDIA",
    "0x1002": "AMD",
    "0x1022": "AMD",
    "0x1e60": "Hailo",
    "0x1ac1": "Google Coral",
    "0x14e4": "Broadcom",
}
# Drivers of NPUs on PCI that are listed as another class.
_NPU_DRIVERS = ("intel_vpu", "amdxdna", "hailo", "apex")
# Virtual screens: a frame buffer without a processor.
_SCREENS_ONLY = {"0x1234", "0x1b36", "0x1013", "0x15ad", "0x80ee", "0x1af4", "0x1d0f"}
# Source: Coral's documentation, "Get started with the USB Accelerator": its two USB ids.
_CORAL_USB = {("1a6e", "089a"), ("18d1", "9302")}
_NPU_NODES = {
    "/dev/adsprpc-smd": "Qualcomm Hexagon",
    "/dev/fastrpc-cdsp": "Qualcomm Hexagon",
    "/dev/rknpu": "Rockchip",
    "/dev/apex_0": "Google Coral",
}


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU or NPU.

    Attributes:
        kind: "gpu" or "npu".
        name: maker and number, such as "Intel 0x46a6".
        driver: the kernel's driver; "" where there is none.
    """

    kind: str
    name: str
    driver: str = ""


def find_hardware(root: Path = Path("/")) -> list[Hardware]:
    """The GPUs and NPUs of this machine.

    Args:
        root: the folder that contains sys and dev.
    """
    found = [described for device in sorted(root.glob("sys/bus/pci/devices/*")) if (described := _pci(device))]
    found += [described for device in sorted(root.glob("sys/class/drm/card[0-9]")) if (described := _on_chip(device))]
    for device in sorted(root.glob("sys/bus/usb/devices/*")):
        if (_word(device / "idVendor"), _word(device / "idProduct")) in _CORAL_USB:
            found.append(Hardware(kind="npu", name="Google Coral USB Accelerator", driver="usb"))
    names = {there.name for there in found}
    for node, name in _NPU_NODES.items():
        if (root / node.lstrip("/")).exists() and name not in names:
            found.append(Hardware(kind="npu", name=name, driver=node))
            names.add(name)
    return found


def _pci(device: Path) -> Hardware | None:
    number = _word(device / "class").removeprefix("0x")[:2]
    driver = _driver(device)
    maker = _word(device / "vendor")
    is_npu = number == _ACCELERATOR or driver in _NPU_DRIVERS
    if not is_npu and (number != _DISPLAY or maker in _SCREENS_ONLY):
        return None
    name = f"{_MAKERS.get(maker, maker)} {_word(device / 'device')}"
    return Hardware(kind="npu" if is_npu else "gpu", name=name, driver=driver)


def _on_chip(card: Path) -> Hardware | None:
    """A GPU that is not a PCI device, such as a Raspberry Pi's."""
    try:
        device = (card / "device").resolve(strict=True)
    except OSError:
        return None
    compatible = _word(device / "of_node" / "compatible").partition("\0")[0]
    return Hardware(kind="gpu", name=compatible, driver=_driver(device)) if compatible else None


def _driver(device: Path) -> str:
    try:
        return (device / "driver").resolve(strict=True).name
    except OSError:
        return ""


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
