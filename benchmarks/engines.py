"""Times the network alone with every engine that this machine can run, against eager float32 at batch 1.

    python -m benchmarks.engines --config yolact_resnet50

Weights and images are random, since times do not depend on them. The engines take turns, so that ratios are right on a
busy machine too. Prints medians and ratios per image, and the seconds until the first result. The floor is the time of
the network's operations at the speed of torch's large matrix products, on the same threads in the same minutes.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import run_benchmark
from jobs.export_model.programs import export_program, write_onnx
from yolact.images.prepare import prepare_image
from yolact.inference.engine import make_engine
from yolact.inference.engine_choice import ENGINES, PRECISIONS, capabilities_here, choose_engine
from yolact.inference.openvino_engine import quantise
from yolact.network.model import build_yolact


@dataclass(frozen=True)
class EnginesBenchConfig:
    """Options of the measurement."""

    config: str = "yolact_resnet50"
    """config of the model"""
    engines: tuple[str, ...] = ()
    """PRECISION/ENGINE, or onnxruntime; each is compared with float32/eager. If none is given: all that this machine
    can run, except onnxruntime"""
    batch_sizes: tuple[int, ...] = (1, 4)
    """batch sizes of the engines; float32/eager always runs at 1"""
    rounds: int = 5
    """timed calls of each engine, in turns"""
    threads: int = 2
    """CPU threads"""
    output: Path | None = None
    """JSON file for the figures"""


@dataclass(frozen=True)
class EngineFigures:
    """The figures of one measurement."""

    engines: dict[str, dict[str, float]]
    """by engine and batch size, float32/eager first: median, fastest and slowest milliseconds per image, and seconds to
    the first result"""
    bfloat16_floor_ms: float
    """time of the network's operations at the rate of large matrix products"""
    bfloat16_floor: str
    """how the floor is computed, in words"""


def main(config: EnginesBenchConfig) -> None:
    """Measure, print the table, write the JSON."""
    figures = measure(config)
    first = figures.engines["float32/eager, batch 1"]["ms_per_image"]
    print(f"{config.config}, {config.threads} threads, medians of {config.rounds}\n")
    print(
        "| engine | ms per image | fastest–slowest | times the speed | s to the first result |\n|---|---|---|---|---|"
    )
    for name, own in figures.engines.items():
        spread = f"{own['fastest_ms']:.0f}–{own['slowest_ms']:.0f}"
        ratio = first / own["ms_per_image"]
        print(f"| {name} | {own['ms_per_image']:.0f} | {spread} | {ratio:.2f} | {own['start_s']:.1f} |")
    floor = figures.bfloat16_floor_ms
    print(f"| floor of bfloat16: {figures.bfloat16_floor} | {floor:.0f} | | {first / floor:.2f} | |")
    if config.output is not None:
        config.output.write_text(json.dumps(asdict(figures), indent=2) + "\n")


def here() -> tuple[str, ...]:
    """PRECISION/ENGINE of all that this machine's CPU can run, except float32/eager."""
    found = []
    capabilities = capabilities_here("cpu")
    for precision in PRECISIONS:
        for engine in ENGINES:
            try:
                choose_engine(precision, engine, capabilities)
            except ValueError:
                continue
            found.append(f"{precision}/{engine}")
    # float16 has no instructions on CPUs
    return tuple(name for name in found if name != "float32/eager" and not name.startswith("float16"))


def measure(config: EnginesBenchConfig) -> EngineFigures:
    """Time every engine, in turns."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(0)
    model = build_yolact(config.config).eval()
    size = model.config.input_size
    calls: dict[str, tuple[Callable[[], object], int]] = {}
    starts: dict[str, float] = {}
    engines = config.engines or here()
    network = _int8(model) if "int8/openvino" in engines else None
    for name in ("float32/eager", *engines):
        for batch in config.batch_sizes if name != "float32/eager" else (1,):
            images = torch.from_numpy(np.random.default_rng(0).normal(size=(batch, 3, size, size)).astype(np.float32))
            start = time.perf_counter()
            call = _call(model, name, images, config.threads, network)
            call()
            label = f"{name}, batch {batch}"
            starts[label] = time.perf_counter() - start
            calls[label] = (call, batch)
    spent: dict[str, list[float]] = {label: [] for label in calls}
    rates: list[float] = []
    for _ in range(config.rounds):
        rates.append(matmul_rate(torch.bfloat16))
        for label, (call, batch) in calls.items():
            start = time.perf_counter()
            call()
            spent[label].append(1000 * (time.perf_counter() - start) / batch)
    measured = {
        label: {
            "ms_per_image": statistics.median(times),
            "fastest_ms": min(times),
            "slowest_ms": max(times),
            "start_s": starts[label],
        }
        for label, times in spent.items()
    }
    operations, rate = count_operations(model), statistics.median(rates)
    how = f"{operations / 1e9:.1f} GFLOP at {rate / 1e12:.2f} TFLOP/s"
    return EngineFigures(measured, 1000 * operations / rate, how)


def matmul_rate(dtype: Any, side: int = 2048) -> float:
    """Floating-point operations per second of one product of two square matrices."""
    left, right = (torch.ones(side, side, dtype=dtype) for _ in range(2))
    start = time.perf_counter()
    torch.mm(left, right)
    return 2 * side**3 / (time.perf_counter() - start)


def count_operations(model: Any) -> int:
    """Floating-point operations of the network for one image. A multiplication with its addition counts as two."""
    size = model.config.input_size
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.infer(torch.zeros(1, 3, size, size))
    return int(counter.get_total_flops())


def _call(model: Any, name: str, images: Any, threads: int, network: Any) -> Callable[[], object]:
    if name == "onnxruntime":
        return _onnxruntime(model, images, threads)
    precision, _, runner = name.partition("/")
    choice = choose_engine(precision, runner or "auto", capabilities_here("cpu"))
    engine = make_engine(
        model, torch.device("cpu"), choice, len(images), network if choice.precision == "int8" else None
    )
    return lambda: engine(images)


def _onnxruntime(model: Any, images: Any, threads: int) -> Callable[[], object]:
    import onnxruntime  # of the extra [onnx]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(export_program(model), path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    array = images.numpy()
    return lambda: session.run(None, {"images": array})


def _int8(model: Any) -> Any:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(2)]
    return quantise(model, [prepare_image(image, model.config.input_size) for image in images])


if __name__ == "__main__":
    run_benchmark(EnginesBenchConfig, __doc__, main)
