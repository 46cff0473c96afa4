"""Has anything become slower? Ratios measured now against those stored in the repository, never absolute times.

    python -m benchmarks.guard            # exit code 1 where a ratio fell below three quarters of what is stored
    python -m benchmarks.guard --store    # after a change that is meant: keep today's ratios

Ratios of engines follow from the instructions a CPU has, so that they are stored for each kind of CPU. Some minutes on
two quiet cores.
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
#: a ratio of medians wanders by a tenth on a quiet machine
_LEAST_SHARE = 0.75
#: from the best: what decides how much faster than float32 the lower precisions are
_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512", "avx2")


@dataclass(frozen=True)
class GuardConfig:
    """Options of the guard."""

    store: bool = False
    """keep the ratios measured now instead of comparing with those kept"""
    config: str = "yolact_resnet50"
    """model whose network is measured"""
    threads: int = 2
    """CPU threads"""


def main(config: GuardConfig) -> None:
    """Measure, compare or store, and tell."""
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
    """The best instructions for networks that this CPU has."""
    capabilities = torch.cpu.get_capabilities()
    return next((name for name in _INSTRUCTIONS if capabilities.get(name)), "none of them")


def regressions(stored: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    """What fell below three quarters of its stored ratio, or is no longer measured; a line each."""
    lines = []
    for name, ratio in stored.items():
        if name not in measured:
            lines.append(f"{name} cannot be measured here")
        elif measured[name] < _LEAST_SHARE * ratio:
            lines.append(f"{name} {measured[name]:.2f}, was {ratio:.2f}")
    return lines


def measure(config: GuardConfig) -> dict[str, float]:
    """How many times faster than its yardstick each thing is."""
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
    run_benchmark(GuardConfig, __doc__, main)
