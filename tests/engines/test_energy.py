"""Energy of a query: what meters give, and that nothing is made up where none can be read."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engines.profile import energy, nvml
from engines.profile.energy import (
    NOT_READABLE,
    Counter,
    PowerIntegral,
    Rapl,
    find_meters,
    measure_energy,
)


class Bench:
    """A machine with a clock of its own: waiting draws 10 W, a query of 0.5 s draws 40 J."""

    def __init__(self) -> None:
        self.now, self.used, self.asked = 0.0, 100.0, []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.used += 10 * seconds

    def query(self, number):
        self.asked.append(number)
        self.now += 0.5
        self.used += 40.0


def test_joules_per_query_and_idle_power():
    bench = Bench()
    meter = Counter("gpu", lambda: bench.used)
    cells = {"dense": bench.query, "pruned": bench.query}
    found = measure_energy(cells, 2.0, [meter], first=7, clock=bench.clock, sleep=bench.sleep)
    assert found["idle_w"] == {"gpu": pytest.approx(10.0)}
    for cell in found["cells"].values():
        assert cell["queries"] == 4
        assert cell["j_per_query"] == {"gpu": pytest.approx(40.0)}
        assert cell["w"] == {"gpu": pytest.approx(80.0)}
    assert bench.asked == [7, 8, 9, 10] * 2


def test_a_query_longer_than_the_time_is_still_measured():
    bench = Bench()
    meter = Counter("gpu", lambda: bench.used)
    found = measure_energy(
        {"dense": bench.query}, 0.1, [meter], clock=bench.clock, sleep=bench.sleep
    )
    assert found["cells"]["dense"]["queries"] == 1


def test_without_a_meter_nothing_runs():
    assert measure_energy({"dense": pytest.fail}, 3.0, []) is None
    assert measure_energy({"dense": pytest.fail}, 0.0, [Counter("gpu", lambda: 1.0)]) is None


def test_a_meter_that_falls_silent_says_so():
    bench, told = Bench(), iter([5.0, 6.0, 7.0, None])
    meter = Counter("gpu", lambda: next(told))
    found = measure_energy({"a": bench.query}, 0.5, [meter], clock=bench.clock, sleep=bench.sleep)
    assert found["cells"]["a"]["j_per_query"] == {"gpu": NOT_READABLE}


def test_power_is_added_up_over_time():
    at = iter([0.0, 1.0, 3.0])
    watts = iter([10.0, 20.0, 20.0])
    meter = PowerIntegral("board", lambda: next(watts), clock=lambda: next(at))
    meter.look()
    meter.look()
    assert meter.joules() == pytest.approx(15.0 + 40.0)


def test_power_is_looked_at_while_the_context_is_open():
    looks = []
    meter = PowerIntegral("board", lambda: looks.append(0) or 5.0)
    with meter:
        while len(looks) < 4:
            pass
        assert meter.joules() > 0
    count = len(looks)
    assert not meter._thread.is_alive()
    assert len(looks) == count


def test_power_that_cannot_be_read_any_more_is_no_energy():
    watts = iter([10.0, None, 10.0])
    meter = PowerIntegral("board", lambda: next(watts))
    meter.look()
    assert meter.joules() is None
    assert meter.joules() is None


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_processor_counters_add_up_and_may_begin_anew(tmp_path):
    zone = "sys/class/powercap/intel-rapl:0"
    write(
        tmp_path,
        {
            f"{zone}/name": "package-0",
            f"{zone}/energy_uj": "9000000",
            f"{zone}/max_energy_range_uj": "10000000",
            "sys/class/powercap/intel-rapl:1/name": "psys",
            "sys/class/powercap/intel-rapl:1/energy_uj": "1",
        },
    )
    meter = Rapl(tmp_path)
    assert meter.joules() == 0.0
    write(tmp_path, {f"{zone}/energy_uj": "1500000"})
    assert meter.joules() == pytest.approx(2.5)
    (tmp_path / zone / "energy_uj").unlink()
    assert meter.joules() is None
    assert Rapl(tmp_path / "nothing").joules() is None


def test_meters_of_a_machine_without_any(tmp_path, monkeypatch):
    monkeypatch.setattr(nvml.NvmlSource, "open", classmethod(lambda cls: None))
    assert find_meters(tmp_path) == []


def test_a_jetsons_rails_and_a_gpus_counter_are_found(tmp_path, monkeypatch):
    hwmon = "sys/class/hwmon/hwmon1"
    write(
        tmp_path,
        {
            "etc/nv_tegra_release": "# R36",
            f"{hwmon}/name": "ina3221",
            f"{hwmon}/in1_label": "VDD_IN",
            f"{hwmon}/in1_input": "5000",
            f"{hwmon}/curr1_input": "2000",
        },
    )
    gpu = SimpleNamespace(joules=lambda: 3.0, values=lambda: {"power_w": 50.0})
    monkeypatch.setattr(nvml.NvmlSource, "open", classmethod(lambda cls: gpu))
    board, counter = find_meters(tmp_path)
    assert (board.name, counter.name) == ("board", "gpu")
    assert isinstance(counter, Counter)
    assert board._watts() == pytest.approx(10.0)
    gpu.joules = lambda: None
    assert isinstance(find_meters(tmp_path)[1], PowerIntegral)
    assert energy.NOT_READABLE == "not readable here"
