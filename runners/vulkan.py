"""Lists GPUs with the Vulkan loader: WebGPU and LiteRT use them but report no name."""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import dataclass

# Source: the Vulkan specification: VkStructureType, VkPhysicalDeviceType and the layout of VkPhysicalDeviceProperties.
_INSTANCE_CREATE_INFO = 1
_TYPES = {0: "other", 1: "integrated", 2: "discrete", 3: "virtual", 4: "software"}
# Dawn, which both runtimes use, is asked for the fastest adapter.
_PREFERENCE = ("discrete", "integrated", "virtual", "other", "software")
_TYPE_OFFSET, _NAME_OFFSET, _NAME_BYTES, _ENOUGH_BYTES = 16, 20, 256, 4096


@dataclass(frozen=True)
class VulkanDevice:
    """One physical device.

    Attributes:
        name: the driver's name for it ("SwiftShader Device (Subzero)").
        type: "discrete", "integrated", "virtual", "software" (a program such as SwiftShader or llvmpipe) or "other".
    """

    name: str
    type: str

    @property
    def is_software(self) -> bool:
        """Whether it is a program and not hardware."""
        return self.type == "software"


class _InstanceCreateInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.c_void_p),
        ("layer_count", ctypes.c_uint32),
        ("layers", ctypes.c_void_p),
        ("extension_count", ctypes.c_uint32),
        ("extensions", ctypes.c_void_p),
    )


def vulkan_devices() -> list[VulkanDevice]:
    """The devices, with the one that a runtime chooses first; none without a loader or driver."""
    try:
        loader = ctypes.CDLL(ctypes.util.find_library("vulkan") or "libvulkan.so.1")
    except OSError:
        return []
    instance = ctypes.c_void_p()
    info = _InstanceCreateInfo(type=_INSTANCE_CREATE_INFO)
    if loader.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance)) != 0:
        return []
    try:
        count = ctypes.c_uint32()
        loader.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
        handles = (ctypes.c_void_p * count.value)()
        loader.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
        found = [_describe(loader, handle) for handle in handles]
    finally:
        loader.vkDestroyInstance(instance, None)
    return sorted(found, key=lambda device: _PREFERENCE.index(device.type))


def _describe(loader: ctypes.CDLL, handle: int | None) -> VulkanDevice:
    properties = ctypes.create_string_buffer(_ENOUGH_BYTES)
    loader.vkGetPhysicalDeviceProperties(ctypes.c_void_p(handle), properties)
    kind = ctypes.c_uint32.from_buffer(properties, _TYPE_OFFSET).value
    name = properties.raw[_NAME_OFFSET : _NAME_OFFSET + _NAME_BYTES].partition(b"\0")[0].decode(errors="replace")
    return VulkanDevice(name, _TYPES.get(kind, "other"))
