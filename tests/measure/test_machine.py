"""The machine's description, from texts of machines that aren't here."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec

from edgecnn.measure import machine as machine_module
from edgecnn.measure.machine import (
    Conditions,
    Machine,
    core_times,
    cpu_flags,
    describe_machine,
    peak_rss_mb,
)
from edgecnn.processor import cpu_model

PI_5 = """\
processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x4
CPU part	: 0xd0b
CPU revision	: 1

processor	: 1
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU part	: 0xd0b

Model		: Raspberry Pi 5 Model B Rev 1.0
"""
PC = """\
processor	: 0
model name	: Intel(R) Core(TM) i7-1185G7 @ 3.00GHz
flags		: fpu sse avx2 avx512f avx512_vnni
"""
BIG_LITTLE = """\
CPU implementer	: 0x41
CPU part	: 0xd05
CPU implementer	: 0x41
CPU part	: 0xd05
CPU implementer	: 0x41
CPU part	: 0xd0b
CPU implementer	: 0x61
CPU part	: 0x022
"""
STAT = """\
cpu  300 0 100 1000 0 0 0 50 0 0
cpu0 100 0 50 500 0 0 0 20 0 0
cpu1 200 0 50 500 0 10 5 30 0 0
intr 1 2 3
"""


def test_an_arm_processor_is_named_by_its_cores() -> None:
    assert cpu_model(PI_5) == "2 x Cortex-A76"
    assert {"asimddp", "asimdhp"} <= cpu_flags(PI_5)


def test_a_pc_processor_has_its_own_name() -> None:
    assert cpu_model(PC) == "Intel(R) Core(TM) i7-1185G7 @ 3.00GHz"
    assert {"avx2", "avx512_vnni"} <= cpu_flags(PC)


def test_unlike_cores_are_counted_and_unknown_ones_keep_their_number() -> None:
    assert cpu_model(BIG_LITTLE) == "2 x Cortex-A55 + 1 x Cortex-A76 + 1 x maker 0x61 part 0x22"


def test_core_times_count_only_the_cores_asked_for() -> None:
    per_s = os.sysconf("SC_CLK_TCK")
    one = core_times(STAT, [1])
    assert (one.busy_s, one.stolen_s) == (265 / per_s, 30 / per_s)
    both = core_times(STAT, [0, 1])
    assert (both.busy_s, both.stolen_s) == (415 / per_s, 50 / per_s)


def test_throttled_bits_are_read_in_words() -> None:
    assert Conditions(throttled=0x50005).throttled_now == ("under-voltage", "throttled")
    assert Conditions(throttled=0x50000).throttled_now == ()
    assert Conditions().throttled_now == ()


def test_this_machine_is_described() -> None:
    here = describe_machine()
    assert here.cpu_model
    assert 1 <= here.cores_allowed <= here.cores_machine
    assert here.memory_mb is None or here.memory_mb > 50
    assert {"edgecnn", "numpy"} <= set(here.versions)
    assert f"{here.cores_allowed} of {here.cores_machine} cores" in here.summary


def test_a_description_survives_json() -> None:
    here = describe_machine()
    assert msgspec.json.decode(msgspec.json.encode(here), type=Machine) == here


def test_an_emulated_board_says_so(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(machine_module, "board_model", lambda: "Raspberry Pi 4 Model B (emulated)")
    here = describe_machine()
    assert here.emulated
    assert here.summary.startswith("Raspberry Pi 4 Model B (emulated) (")


def test_the_same_machine_is_known_again_whatever_it_is_doing() -> None:
    here = describe_machine()
    busier = msgspec.structs.replace(here, conditions=Conditions(load_1min=9.0), memory_available_mb=1.0)
    assert busier.identity == here.identity


def test_peak_memory_of_a_child_is_its_own() -> None:
    ballast = bytearray(200_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    code = "from edgecnn.measure.machine import peak_rss_mb; print(peak_rss_mb())"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert 0 < float(printed) < 150
    assert peak_rss_mb() > 200
