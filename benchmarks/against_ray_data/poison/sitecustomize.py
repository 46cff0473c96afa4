"""Every Python process that has this folder on its PYTHONPATH dies when it opens a JPEG of POISON_SIZE, WIDTHxHEIGHT.

It stands for a bug in a decoder's C code, which ends the process by a signal.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_MODULE = "PIL.JpegImagePlugin"


class _Poison(importlib.abc.MetaPathFinder):
    """Changes Pillow's JPEG reader right after it was imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _change(module: ModuleType) -> None:
    open_header = module.JpegImageFile._open
    poison = tuple(int(side) for side in os.environ["POISON_SIZE"].split("x"))

    def _open(self) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        open_header(self)
        if self.size == poison:
            os.kill(os.getpid(), signal.SIGKILL)

    module.JpegImageFile._open = _open


sys.meta_path.insert(0, _Poison())
