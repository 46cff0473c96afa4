"""Samples once a second how busy the CPUs and GPUs of this machine are. Linux only."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType

_INTERVAL_SECONDS = 1.0


class UtilisationSampler:
    """Takes samples within its `with` block; `between` gives means over a part of that time."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        #: (time, {"CPU": percent since the sample before, "GPU": percent})
        self._samples: list[tuple[float, dict[str, float]]] = []

    def __enter__(self) -> UtilisationSampler:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def between(self, began: float, ended: float) -> dict[str, float]:
        """Mean percent by kind of device, over the samples between two `time.time()`; empty where there are none."""
        inside = [percents for moment, percents in self._samples if began <= moment <= ended]
        kinds = {kind for percents in inside for kind in percents}
        return {kind: sum(percents.get(kind, 0.0) for percents in inside) / len(inside) for kind in sorted(kinds)}

    def _sample(self) -> None:
        before = _cpu_times()
        while not self._stop.wait(_INTERVAL_SECONDS):
            percents = {}
            now = _cpu_times()
            if before is not None and now is not None and now[1] > before[1]:
                percents["CPU"] = 100 * (now[0] - before[0]) / (now[1] - before[1])
            before = now
            gpus = _gpu_percents()
            if gpus:
                percents["GPU"] = sum(gpus) / len(gpus)
            self._samples.append((time.time(), percents))


def _cpu_times() -> tuple[int, int] | None:
    """(busy, total) clock ticks of all CPUs since the machine started; None where there is no /proc."""
    try:
        line = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal; user and nice already count the guests
    ticks = [int(text) for text in line.split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _gpu_percents() -> list[float]:
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        done = subprocess.run(["nvidia-smi", "-q", "-x"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return gpu_percents_in(done.stdout)


def gpu_percents_in(described: str) -> list[float]:
    """Utilisation of each GPU in the XML of `nvidia-smi -q -x`; GPUs that do not report it are left out."""
    return [float(percent) for percent in re.findall(r"<gpu_util>\s*(\d+)\s*%\s*</gpu_util>", described)]
