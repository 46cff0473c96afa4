"""What a call asks of a CUDA card: kernels, copies, waits, and the share of time in which the card works."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.machine import wait_for

#: names of CUDA calls by what they do
_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
_COPIES = ("cudaMemcpyAsync", "cudaMemcpy")


def count_launches(call: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """Profile one call.

    Returns:
        `launches`, `waits`, `copies` (to and from the card, and within), `to_host`, `to_card`; `busy`: the time in
        which at least one kernel or copy ran, over the time of the call. On a CPU only the milliseconds.
    """
    wait_for(device)
    start = time.perf_counter()
    call()
    wait_for(device)
    milliseconds = 1000 * (time.perf_counter() - start)
    if device.type != "cuda":
        return {"milliseconds": milliseconds}
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        call()
        ended = time.perf_counter()
        wait_for(device)
    del ended
    counts = dict.fromkeys(("launches", "waits", "copies", "to_host", "to_card"), 0)
    on_card: list[tuple[float, float]] = []
    for event in profiled.events():
        name = event.name
        if event.device_type == torch.autograd.DeviceType.CUDA:
            on_card.append((event.time_range.start, event.time_range.end))
            counts["to_host"] += "DtoH" in name
            counts["to_card"] += "HtoD" in name
        elif name in _LAUNCHES:
            counts["launches"] += 1
        elif name in _WAITS:
            counts["waits"] += 1
        elif name in _COPIES:
            counts["copies"] += 1
    counts["waits"] -= 1  # the one after the call
    return {**counts, "milliseconds": milliseconds, "card_ms": _covered(on_card) / 1000}


def _covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union of spans."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
