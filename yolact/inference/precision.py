"""Arithmetics by name, and which of them a device is fast at."""

from __future__ import annotations

import torch

#: of those that torch computes a network in
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def has_fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 has instructions of its own there; where it is emulated it is ten times slower than float32.

    Args:
        device: "cpu", or anything that torch takes as a CUDA device.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def has_amx(device: str) -> bool:
    """Whether it is a CPU whose matrix tiles take bfloat16."""
    return torch.device(device).type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))
