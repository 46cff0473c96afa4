"""Chooses the engine and the precision of the network: a pure function of what the machine can do.

Imports no torch, so that a command can refuse an impossible choice before it loads anything heavy.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["float32", "bfloat16", "float16", "int8"]
EngineName = Literal["eager", "compiled", "openvino"]

#: what a user may ask for: "auto" leaves the choice to `choose_engine`
AskedPrecision = Literal["auto", Precision]
AskedEngine = Literal["auto", EngineName]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


@dataclass(frozen=True)
class Capabilities:
    """What a machine offers to a network that runs on `device`, "cpu" or "cuda"."""

    device: str
    fast_bfloat16: bool
    """it has instructions for bfloat16: AMX, AVX-512 BF16, or a GPU since Ampere"""
    amx: bool
    """it is a CPU with AMX, tiles for matrix products"""
    compiler: bool
    """torch.compile has what it needs: a C++ compiler for CPUs, Triton for GPUs"""
    openvino: bool
    """the extra [openvino] is installed"""


@dataclass(frozen=True)
class EngineChoice:
    """A precision, the engine that computes in it, and the reason in words."""

    precision: Precision
    engine: EngineName
    reason: str

    def describe(self) -> str:
        return f"{self.precision} by {self.engine} ({self.reason})"


def choose_engine(precision: str, engine: str, here: Capabilities) -> EngineChoice:
    """Replace "auto" by the best choice for a machine.

    Precision "auto" is the fastest one that costs next to no accuracy. It is never int8, whose cost depends on the
    model, and bfloat16 only where the machine has instructions for it. float32 asked for by name is the exact path:
    eager and without start-up cost, unless another engine is asked for as well.

    Raises:
        ValueError: for an unknown name, or a pair that the machine cannot run; says what to do.
    """
    if precision != "auto" and precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is not one of auto, {', '.join(PRECISIONS)}")
    if engine != "auto" and engine not in ENGINES:
        raise ValueError(f"engine {engine!r} is not one of auto, {', '.join(ENGINES)}")
    reasons: list[str] = []
    if precision == "auto":
        computed, reason = _fastest_precision(here)
        reasons.append(reason)
    else:
        computed = next(name for name in PRECISIONS if name == precision)
    if engine == "auto":
        runner, reason = _fastest_engine(computed, here, exact=precision == "float32")
        reasons.append(reason)
    else:
        runner = next(name for name in ENGINES if name == engine)
    _check(computed, runner, here)
    return EngineChoice(computed, runner, "; ".join(reasons) or "as asked for")


def _fastest_precision(here: Capabilities) -> tuple[Precision, str]:
    if here.device == "cuda":
        if here.fast_bfloat16:
            return "bfloat16", "the GPU computes bfloat16"
        return "float16", "the GPU has no bfloat16"
    if here.fast_bfloat16:
        return "bfloat16", "the CPU has bfloat16 instructions"
    return "float32", "the CPU has neither AMX nor AVX-512 BF16"


def _fastest_engine(precision: Precision, here: Capabilities, *, exact: bool) -> tuple[EngineName, str]:
    """As measured in docs/engines.md."""
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
            raise ValueError(
                "openvino computes bfloat16 only on CPUs with bfloat16 instructions, and this CPU has none: use float32"
            )
        if not here.openvino:
            raise ValueError("openvino is not installed: pip install 'yolact-ray[openvino]'")
    if engine == "compiled" and not here.compiler:
        raise ValueError("torch.compile finds no C++ compiler here (g++ or clang++): install one, or use engine eager")


def capabilities_here(device: str) -> Capabilities:
    """What this machine offers; `device` is "cpu" or "cuda". Imports torch."""
    # imports torch; to refuse an impossible choice a command needs only the rest of this file
    from yolact.inference.precision import has_amx, has_fast_bfloat16

    if device == "cuda":
        compiler = importlib.util.find_spec("triton") is not None
    else:
        compiler = any(shutil.which(name) for name in ("g++", "clang++"))
    openvino = all(importlib.util.find_spec(name) is not None for name in ("openvino", "nncf"))
    return Capabilities(device, has_fast_bfloat16(device), has_amx(device), compiler, openvino)
