"""Measures this machine's GPU: the release's answers, speeds, their share of the peak, kernels, copies and waits.

    python -m benchmarks.gpu --output build/gpu.json

Without a GPU it does the same with the CPU, on fewer sizes, so that the command itself can be tested anywhere. A step
that finds no time left is named in the result. Models have random weights, because weights change no speed. So that
post-processing has its usual work, the network's outputs are replaced by a scene with a known number of instances.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import labelling, machine, table, training
from benchmarks.harness import run_benchmark


@dataclass(frozen=True)
class GpuConfig:
    """Options of the measurement."""

    output: Path = Path("build/gpu.json")
    """JSON file for the figures; the table is printed, and written beside it as .md"""
    minutes: float = 9.0
    """no step begins later than this"""
    device: str = "auto"
    """cuda, cpu, or auto for the GPU where there is one"""
    only: tuple[str, ...] = ()
    """steps by the beginning of their names; all where empty"""


Step = Callable[[], dict[str, Any]]


def steps_for(device: torch.device, config: GpuConfig) -> Iterator[tuple[str, Step]]:
    """Every step by name, the most telling ones first."""
    on_card = device.type == "cuda"
    models = ("yolact_resnet50", "yolact_base") if on_card else ("yolact_resnet50",)
    batches = (16, 64, 1, 8, 32) if on_card else (1, 2)
    yield "parity", lambda: machine.parity(device)
    yield "peak", lambda: machine.peak(device)
    for model in models:
        for precision in ("bfloat16", "float32"):
            yield (
                f"network {model} {precision} eager",
                partial(labelling.network_speeds, model, device, precision, "eager", batches),
            )
    for batch in batches[:2]:
        for instances in (10, 100):
            yield f"labelling {batch} × {instances}", partial(labelling.whole_path, device, batch, instances)
    yield "both ways", lambda: labelling.both_ways(device, batches[0])
    yield "counts", lambda: labelling.counts(device, batches[0], 10)
    yield "agreement", lambda: machine.agreement(device)
    yield "training", lambda: training.step_speed(device, 8)
    if on_card:
        for batch, instances in ((64, 10), (16, 10), (64, 100)):
            yield (
                f"labelling compiled {batch} × {instances}",
                partial(labelling.whole_path, device, batch, instances, "compiled"),
            )
    for model in models:
        yield (
            f"network {model} bfloat16 compiled",
            partial(labelling.network_speeds, model, device, "bfloat16", "compiled", batches[:2]),
        )


def main(config: GpuConfig) -> None:
    """Take every step, keep what is done after each one, print the table."""
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    device = torch.device(chosen)
    began = time.monotonic()
    figures: dict[str, Any] = {"machine": machine.describe(device), "steps": {}, "failed": {}, "not_reached": []}
    config.output.parent.mkdir(parents=True, exist_ok=True)
    for name, step in steps_for(device, config):
        if config.only and not name.startswith(config.only):
            continue
        if time.monotonic() - began > 60 * config.minutes:
            figures["not_reached"].append(name)
            continue
        start = time.monotonic()
        try:
            figures["steps"][name] = step()
            print(f"{time.monotonic() - began:5.0f} s  {name}: {figures['steps'][name]}", flush=True)
        except Exception as error:  # a step that cannot run here must not cost the others their time
            traceback.print_exc()
            figures["failed"][name] = f"{type(error).__name__}: {error}"[:500]
            print(f"{time.monotonic() - began:5.0f} s  {name} failed: {error}", flush=True)
        figures["seconds"] = {**figures.get("seconds", {}), name: round(time.monotonic() - start, 1)}
        config.output.write_text(json.dumps(figures, indent=2) + "\n")
    text = table.markdown(figures)
    config.output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    run_benchmark(GpuConfig, __doc__, main)
