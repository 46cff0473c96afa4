"""What the machine is, its peak, and whether it computes the release's answers."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from jobs.plates.drawing import draw_plate
from yolact.inference.detections import Detections
from yolact.inference.predictor import Predictor
from yolact.network.model import build_yolact
from yolact.weights.checkpoint import load_weights

ROOT = Path(__file__).resolve().parents[2]


def describe(device: torch.device) -> dict[str, Any]:
    """Names and versions that every figure belongs to."""
    found = {"device": device.type, "torch": torch.__version__, "python": platform.python_version()}
    found["cpus"] = str(os.cpu_count())
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["name"] = properties.name
        found["memory_gib"] = f"{properties.total_memory / 2**30:.0f}"
        found["cards"] = str(torch.cuda.device_count())
    return found


def wait_for(device: torch.device) -> None:
    """Return when everything that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_call(call: Callable[[], object], device: torch.device, least_seconds: float = 0.5) -> float:
    """Mean seconds of a call, after two that are not timed; as many calls as `least_seconds` hold, 3 or more."""
    for _ in range(2):
        call()
    wait_for(device)
    calls, start = 0, time.perf_counter()
    while calls < 3 or time.perf_counter() - start < least_seconds:
        call()
        calls += 1
        if calls % 8 == 0:  # the queue of a GPU must not grow without end
            wait_for(device)
    wait_for(device)
    return (time.perf_counter() - start) / calls


def peak(device: torch.device) -> dict[str, float]:
    """TFLOP/s of a large matrix product in bfloat16 (on a CPU float32): what the share of the peak refers to."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = seconds_per_call(lambda: left @ right, device, 1.0)
    return {"tflops": 2 * size**3 / seconds / 1e12}


def parity(device: torch.device) -> dict[str, Any]:
    """The tests of parity with the original release, computed on the device in float32."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["tests/yolact/inference/test_parity.py", "--device", device.type]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    lines = done.stdout.strip().splitlines() or [done.stderr[-500:]]
    if done.returncode:
        print("\n".join(lines[-60:]), flush=True)
        raise RuntimeError(lines[-1])
    return {"result": lines[-1].strip("= ")}


def agreement(device: torch.device) -> dict[str, float]:
    """How the shipped model's detections in bfloat16 agree with those in float32, on four drawn plates of nuclei."""
    model = build_yolact("nuclei").eval()
    load_weights(model)
    images = [draw_plate(0, index).pixels for index in range(4)]
    exact = Predictor(model, device, "float32")(images)
    rounded = Predictor(model, device, "bfloat16", engine="eager")(images)
    shares, ious = zip(*[_matched(a, b) for a, b in zip(exact, rounded, strict=True)], strict=True)
    return {
        "detections": float(sum(map(len, exact))),
        "found_again": float(np.mean(shares)),
        "mask_iou": float(np.mean(np.concatenate(ious))),
    }


def _matched(exact: Detections, other: Detections) -> tuple[float, list[float]]:
    """The share of detections that the other one has with the same class and a mask IoU above 0.5, and these IoUs."""
    if not len(exact) or not len(other):
        return float(len(exact) == len(other)), []
    ious = coco_mask.iou(other.masks, exact.masks, [0] * len(exact))
    ious[other.labels[:, None] != exact.labels[None]] = 0
    best = ious.max(axis=0)
    return float((best > 0.5).mean()), best[best > 0.5].tolist()
