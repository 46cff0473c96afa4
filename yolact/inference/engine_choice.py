"""Which engine runs the network, and in which arithmetic: a pure function of what a machine can do.

Imports no torch, so that a command can refuse an impossible choice before anything heavy is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "bfloat16", "float16", "int8"]
EngineName = Literal["eager", "compiled", "openvino"]

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16", "int8")
ENGINES: tuple[EngineName, ...] = ("eager", "compiled", "openvino")


@dataclass(frozen=True)
class Capabilities:
    """What a machine offers to a network that runs on `device`, "cpu" or "cuda"."""

    device: str
    fast_bfloat16: bool
    """bfloat16 has instructions of its own: AMX, AVX-512 BF16, or a GPU since Ampere"""
    amx: bool
    """a CPU with tiles for matrix products"""
    compiler: bool
    """torch.compile has what it needs: a C++ compiler for CPUs, Triton for GPUs"""
    openvino: bool
    """the extra [openvino] is installed"""


@dataclass(frozen=True)
class EngineChoice:
    """An arithmetic, what runs it, and the reason in words."""

    precision: Precision
    engine: EngineName
    reason: str

    def describe(self) -> str:
        return f"{self.precision} by {self.engine} ({self.reason})"


def choose_engine(precision: str, engine: str, here: Capabilities) -> EngineChoice:
    """Fill in what was left to "auto".

    `precision` "auto" is the fastest arithmetic that costs no accuracy worth naming: never int8, whose price depends
    on the model, and bfloat16 only where it has instructions of its own. float32 asked for by name is the exact path,
    eager and without start-up cost, unless another engine is asked for as well.

    Raises:
        ValueError: for an unknown name, or a pair that this machine cannot run; says what to do.
    """
    if precision != "auto" and precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is not one of auto, {', '.join(PRECISIONS)}")
    if engine != "auto" and engine not in ENGINES:
        raise ValueError(f"engine {engine!r} is not one of auto, {', '.join(ENGINES)}")
    reasons: list[str] = []
    if precision == "auto":
        arithmetic, reason = _fastest_precision(here)
        reasons.append(reason)
    else:
        arithmetic = next(name for name in PRECISIONS if name == precision)
    if engine == "auto":
        runner, reason = _fastest_engine(arithmetic, here, exact=precision == "float32")
        reasons.append(reason)
    else:
        runner = next(name for name in ENGINES if name == engine)
    _check(arithmetic, runner, here)
    return EngineChoice(arithmetic, runner, "; ".join(reasons) or "as asked for")


def _fastest_precision(here: Capabilities) -> tuple[Precision, str]:
    if here.device == "cuda":
        if here.fast_bfloat16:
            return "bfloat16", "the GPU computes bfloat16"
        return "float16", "the GPU has no bfloat16"
    if here.fast_bfloat16:
        return "bfloat16", "the CPU has bfloat16 instructions"
    return "float32", "the CPU has neither AMX nor AVX-512 BF16"


def _fastest_engine(precision: Precision, here: Capabilities, *, exact: bool) -> tuple[EngineName, str]:
    """By the measurements of docs/engines.md."""
    if precision == "int8":
        return "openvino", "int8 is OpenVINO's"
    if exact:
        return "eager", "the exact path"
    if here.compiler and (here.device == "cuda" or here.amx):
        return "compiled", "torch.compile has its compiler"
    if here.device == "cuda":
        return "eager", "torch.compile finds no compiler"
    if here.openvino and precision != "float16":
        return "openvino", "the fastest without AMX" if not here.amx else "torch.compile finds no C++ compiler"
    return "eager", "nothing faster is installed for it"


def _check(precision: Precision, engine: EngineName, here: Capabilities) -> None:
    if precision == "int8" and engine != "openvino":
        raise ValueError(f"int8 runs by openvino alone, not by {engine}: leave the engine to auto")
    if engine == "openvino":
        if here.device != "cpu":
            raise ValueError(
                f"openvino runs on CPUs, not on {here.device}: use another precision or engine, or the CPU"
            )
        if precision == "float16":
            raise ValueError("openvino has no float16 on CPUs: use float32, bfloat16 or int8")
        if precision == "bfloat16" and not here.fast_bfloat16:
            raise ValueError("openvino computes bfloat16 only where the CPU has it, and this one has not: use float32")
        if not here.openvino:
            raise ValueError("openvino is not installed: pip install 'yolact-ray[openvino]'")
    if engine == "compiled" and not here.compiler:
        raise ValueError("torch.compile finds no C++ compiler here (g++ or clang++): install one, or use engine eager")


def capabilities_here(device: str) -> Capabilities:
    """Those of this machine; `device` is "cpu" or "cuda". Imports torch."""
    import importlib.util
    import shutil

    from yolact.inference.precision import has_amx, has_fast_bfloat16

    if device == "cuda":
        compiler = importlib.util.find_spec("triton") is not None
    else:
        compiler = any(shutil.which(name) for name in ("g++", "clang++"))
    openvino = all(importlib.util.find_spec(name) is not None for name in ("openvino", "nncf"))
    return Capabilities(device, has_fast_bfloat16(device), has_amx(device), compiler, openvino)
