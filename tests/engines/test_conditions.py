"""Recorded `/sys` trees of three machines, and an NVML that says what a test wants."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.profile.conditions import NOT_READABLE, LinuxSource, Watch, find_sources
from engines.profile.jetson import JetsonSource, JtopSource
from engines.profile.nvml import NvmlSource


def write(root: Path, files: dict[str, object]) -> Path:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


ORIN = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=MODE_30W >",
    "var/lib/nvpmodel/status": "pmode:0002",
    "sys/firmware/devicetree/base/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": 2201600,
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
    "sys/class/thermal/thermal_zone0/temp": 51250,
    "sys/class/thermal/thermal_zone1/temp": 48000,
    "sys/class/thermal/cooling_device0/type": "pwm-fan",
    "sys/class/thermal/cooling_device0/cur_state": 3,
    "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert",
    "sys/class/thermal/cooling_device1/cur_state": 0,
    "sys/class/devfreq/17000000.gpu/cur_freq": 1300500000,
    "sys/class/hwmon/hwmon0/name": "ina3221",
    "sys/class/hwmon/hwmon0/in1_label": "VDD_GPU_SOC",
    "sys/class/hwmon/hwmon0/in1_input": 12000,
    "sys/class/hwmon/hwmon0/curr1_input": 1500,
    "sys/class/hwmon/hwmon0/in2_label": "VDD_CPU_CV",
    "sys/class/hwmon/hwmon0/in2_input": 12000,
    "sys/class/hwmon/hwmon0/curr2_input": 500,
    "sys/class/hwmon/hwmon1/name": "soctherm_oc",
    "sys/class/hwmon/hwmon1/oc3_event_cnt": 37,
}


def test_a_bare_machine_says_what_it_cannot_tell(tmp_path):
    watch = Watch(find_sources(tmp_path)[:1])
    watch.read()
    found = watch.summary()
    assert found["cpu_governor"] == found["power_w"] == found["gpu_mhz"] == NOT_READABLE
    assert found["throttled_rounds"] == 0


def test_a_processor_that_was_too_hot_meanwhile_is_seen(tmp_path):
    count = "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count"
    source = LinuxSource(write(tmp_path, {count: 5}))
    watch = Watch([source])
    assert watch.read().throttled == ()
    write(tmp_path, {count: 6})
    assert watch.read().throttled == ("processor too hot (1 core(s))",)
    assert watch.read().throttled == ()
    assert watch.summary()["throttled_rounds"] == 1


def test_a_jetson_tells_mode_rails_and_clocks(tmp_path):
    write(tmp_path, ORIN)
    assert JetsonSource.present(tmp_path)
    watch = Watch([LinuxSource(tmp_path), JetsonSource(tmp_path)])
    assert watch.facts()["power_mode"] == "2 (MODE_30W)"
    assert watch.facts()["jetson_model"] == "NVIDIA Jetson AGX Orin Developer Kit"
    values = watch.read().values
    assert values["power_w"] == pytest.approx(12.0 * 1.5 + 12.0 * 0.5)
    assert values["gpu_mhz"] == pytest.approx(1300.5)
    assert values["cpu_mhz"] == pytest.approx(2201.6)
    assert values["hottest_c"] == pytest.approx(51.25)


def test_the_input_rail_is_the_whole_board(tmp_path):
    rail = {"in1_label": "VDD_IN", "in1_input": 5000, "curr1_input": 2000}
    write(tmp_path, ORIN | {f"sys/class/hwmon/hwmon0/{k}": v for k, v in rail.items()})
    assert JetsonSource(tmp_path).values()["power_w"] == pytest.approx(10.0)


def test_a_jetson_that_holds_back_is_seen(tmp_path):
    source = JetsonSource(write(tmp_path, ORIN))
    assert source.throttled() == []
    write(tmp_path, {"sys/class/hwmon/hwmon1/oc3_event_cnt": 39})
    assert source.throttled() == ["board: over-current"]
    write(tmp_path, {"sys/class/thermal/cooling_device1/cur_state": 1})
    assert source.throttled() == ["thermal alert: gpu-throttle-alert"]


def test_a_machine_without_jtop_or_nvml_has_neither_source(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "jtop", None)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert JtopSource.open() is None
    assert NvmlSource.open() is None


def test_jtop_gives_the_memory_clock():
    client = SimpleNamespace(nvpmodel="MAXN", memory={"EMC": {"cur": 3199000}})
    source = JtopSource(client)
    assert source.values() == {"memory_mhz": 3199.0}
    assert source.facts() == {"power_mode": "MAXN"}
    assert JtopSource(SimpleNamespace(memory={})).values() == {}


class FakeNvml:
    """What nvidia-ml-py offers, for a GPU that cannot tell its memory clock."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        pass

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetName(self, gpu):  # noqa: N802
        return b"NVIDIA Test"

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        return "570.1"

    def nvmlDeviceGetClockInfo(self, gpu, kind):  # noqa: N802
        if kind == self.NVML_CLOCK_MEM:
            raise self.NVMLError
        return 1980

    def nvmlDeviceGetTemperature(self, gpu, kind):  # noqa: N802
        return 61

    def nvmlDeviceGetPowerUsage(self, gpu):  # noqa: N802
        return 312_500

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu):  # noqa: N802
        return self.bits


def test_nvml_reads_what_the_gpu_tells():
    source = NvmlSource(FakeNvml(0x1))
    assert source.facts() == {"gpu": "NVIDIA Test", "gpu_driver": "570.1"}
    assert source.values() == {"gpu_mhz": 1980.0, "hottest_c": 61.0, "power_w": 312.5}
    assert source.throttled() == []  # idle is no throttling


def test_nvml_names_every_reason():
    assert NvmlSource(FakeNvml(0x04 | 0x40)).throttled() == [
        "GPU: power cap",
        "GPU: too hot (hardware)",
    ]
