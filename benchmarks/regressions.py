"""Finds out whether the code became slower: compares ratios of speeds, measured now, with ratios in the repository.

    python -m benchmarks.regressions            # exit code 1 where a ratio fell below three quarters of the stored one
    python -m benchmarks.regressions --store    # after an intended change: store today's ratios

Absolute times are not compared, because they depend on the machine. Ratios of engines depend on the instructions of the
CPU, so they are stored by kind of CPU. Takes some minutes on two quiet cores.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import engines, postprocess
from benchmarks.harness import run_benchmark

RATIOS = Path(__file__).parent / "ratios.json"
#: a ratio of medians varies by a tenth on a quiet machine
_LEAST_SHARE = 0.75
#: instructions, the fastest first, that decide how much faster than float32 the lower precisions are
_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512", "avx2")


@dataclass(frozen=True)
class RegressionsConfig:
    """Options of the comparison."""

    store: bool = False
    """store the measured ratios instead of comparing them"""
    config: str = "yolact_resnet50"
    """model whose network is measured"""
    threads: int = 2
    """CPU threads"""


def main(config: RegressionsConfig) -> None:
    """Measure the ratios, print them, and compare or store them."""
    kind = cpu_kind()
    stored = json.loads(RATIOS.read_text()) if RATIOS.exists() else {}
    if not config.store and kind not in stored:
        sys.exit(f"no ratios are stored for CPUs with {kind}: keep some of a good commit with --store")
    measured = measure(config)
    if config.store:
        RATIOS.write_text(json.dumps(stored | {kind: measured}, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    for name, ratio in measured.items():
        print(f"{name}: {ratio:.2f}" + (f", stored {stored[kind].get(name, 'nothing')}" if kind in stored else ""))
    if not config.store and (slower := regressions(stored[kind], measured)):
        sys.exit("slower than stored: " + "; ".join(slower))


def cpu_kind() -> str:
    """The first of `_INSTRUCTIONS` that this CPU has."""
    capabilities = torch.cpu.get_capabilities()
    return next((name for name in _INSTRUCTIONS if capabilities.get(name)), "none of them")


def regressions(stored: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    """One line for each ratio that fell below three quarters of the stored one or is no longer measured."""
    lines = []
    for name, ratio in stored.items():
        if name not in measured:
            lines.append(f"{name} cannot be measured here")
        elif measured[name] < _LEAST_SHARE * ratio:
            lines.append(f"{name} {measured[name]:.2f}, was {ratio:.2f}")
    return lines


def measure(config: RegressionsConfig) -> dict[str, float]:
    """The ratios: how many times faster each path is than the path that it is compared with."""
    ratios: dict[str, float] = {}
    steps = postprocess.measure(postprocess.PostprocessBenchConfig(config.config, threads=config.threads))
    for case in ("100 detections", "10 detections"):
        ratios[f"post-processing of {case} against the simple path"] = steps[case]["ratio"]
    (nms,) = (values for values in steps.values() if "fast_nms_ms" in values)
    ratios["Fast NMS against torchvision's, best class of each box"] = (
        nms["batched_nms_best_class_ms"] / nms["fast_nms_ms"]
    )
    ratios["Fast NMS against torchvision's, all pairs"] = nms["batched_nms_all_pairs_ms"] / nms["fast_nms_ms"]
    runs = engines.measure(engines.EnginesBenchConfig(config.config, batch_sizes=(1,), threads=config.threads))
    yardstick, *others = runs.engines
    for name in others:
        times = runs.engines[yardstick]["ms_per_image"] / runs.engines[name]["ms_per_image"]
        ratios[f"{name} against {yardstick}"] = times
    return {name: round(ratio, 2) for name, ratio in ratios.items()}


if __name__ == "__main__":
    run_benchmark(RegressionsConfig, __doc__, main)
