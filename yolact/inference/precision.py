"""The precisions of the network: their names, which of them a device computes fast, and how float32 stays exact."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

#: the precisions that torch itself computes a network in, by the names of `engine_choice.Precision`
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def has_fast_bfloat16(device: str) -> bool:
    """Whether a device has bfloat16 instructions. Without them bfloat16 is emulated, ten times slower than float32.

    Args:
        device: "cpu", or anything that torch takes as a CUDA device.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def has_amx(device: str) -> bool:
    """Whether the device is a CPU with AMX: tiles that multiply bfloat16 matrices."""
    return torch.device(device).type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 in full inside this block: no TF32 on GPUs, no bfloat16 inside of float32 on CPUs.

    The lower arithmetics cost three digits of every convolution and matrix product. PyTorch's switches belong to the
    whole process, so blocks of several threads share one change: the first block that begins makes it, the last one
    that ends puts back what the program had set.
    """
    _exact.begin()
    try:
        yield
    finally:
        _exact.end()


class _ExactFloat32:
    """The change that all `full_float32` blocks of the process share, and how many of them are open.

    PyTorch has old switches (`allow_tf32`, `set_float32_matmul_precision`) and new ones (`fp32_precision`). Reading an
    old one raises where the new ones say something that the old ones cannot. Parts of PyTorch read the old ones while
    they compute, so both kinds are set to the same. The old ones are put back first, because they change new ones too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._new: list[str] = []
        self._old_cudnn: bool | None = None
        self._old_matmul: str | None = None

    def begin(self) -> None:
        with self._lock:
            self._open += 1
            if self._open > 1:
                return
            self._new = [switch.fp32_precision for switch in _new_switches()]
            self._old_cudnn, self._old_matmul = _old_cudnn(), _old_matmul()
            torch.backends.cudnn.allow_tf32 = False
            torch.set_float32_matmul_precision("highest")
            for switch in _new_switches():
                switch.fp32_precision = "ieee"

    def end(self) -> None:
        with self._lock:
            self._open -= 1
            if self._open:
                return
            if self._old_cudnn is not None:
                torch.backends.cudnn.allow_tf32 = self._old_cudnn
            if self._old_matmul is not None:
                torch.set_float32_matmul_precision(self._old_matmul)
            for switch, value in zip(_new_switches(), self._new, strict=True):
                switch.fp32_precision = value


_exact = _ExactFloat32()


def _new_switches() -> tuple[Any, ...]:
    # the types of torch do not know all of them
    backends: Any = torch.backends
    mkldnn = backends.mkldnn
    return (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul, mkldnn.conv, mkldnn.matmul, mkldnn.rnn)


def _old_cudnn() -> bool | None:
    """The old switch of convolutions on GPUs; None where it cannot say what the new ones do."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None


def _old_matmul() -> str | None:
    """The old switch of matrix products; None where it cannot say what the new ones do."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
