"""float32 in full, whatever the program has set for its own networks, and the program's settings afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from yolact.inference import precision
from yolact.inference.precision import full_float32

pytestmark = pytest.mark.compute

ROOT = Path(__file__).resolve().parents[3]

#: what programs do, with the old switches, the new ones and both
SETTINGS = {
    "nothing": "",
    "old, on": "torch.set_float32_matmul_precision('high')",
    "old, off": "torch.set_float32_matmul_precision('highest'); torch.backends.cudnn.allow_tf32 = False",
    "old, bfloat16": "torch.set_float32_matmul_precision('medium')",
    "new, for all": "torch.backends.fp32_precision = 'tf32'",
    "new, one against all": "torch.backends.fp32_precision = 'tf32'; torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "new, convolutions": "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "new, CPU": "torch.backends.mkldnn.conv.fp32_precision = 'bf16'",
}

PROGRAM = """
import torch, warnings
warnings.simplefilter("error")
from yolact.inference import precision

def state():
    switches = [switch.fp32_precision for switch in precision._new_switches()]
    return [*switches, torch.backends.fp32_precision, precision._old_cudnn(), precision._old_matmul()]

{setting}
before = state()
with precision.full_float32():
    with precision.full_float32():
        pass
    inside = state()
    # PyTorch's own code reads these
    assert torch.backends.cudnn.allow_tf32 is False and torch.backends.cuda.matmul.allow_tf32 is False
    assert torch.get_float32_matmul_precision() == "highest"
assert set(inside[:6]) == {{"ieee"}}, inside
assert state() == before, (before, state())
"""


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_what_a_program_has_set_is_kept(setting):
    """In a process of its own, because some of these settings cannot be undone."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(setting=setting)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_threads_share_one_change():
    """The block that ends first must not end the block of the other thread."""
    before = [switch.fp32_precision for switch in precision._new_switches()]
    first_is_in, first_may_go = threading.Event(), threading.Event()

    def first():
        with full_float32():
            first_is_in.set()
            first_may_go.wait()

    thread = threading.Thread(target=first)
    thread.start()
    first_is_in.wait()
    with full_float32():
        first_may_go.set()
        thread.join()
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert [switch.fp32_precision for switch in precision._new_switches()] == before
