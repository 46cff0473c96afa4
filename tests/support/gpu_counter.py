"""Counts on a CPU what a piece of code would ask of a GPU: kernels, and waits for a number or for a copy."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

#: operations that start no kernel
_FREE = {"detach", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "unbind", "split", "alias"}
_FREE |= {"split_with_sizes", "_local_scalar_dense", "is_pinned", "resize_", "lift_fresh"}
#: methods and operations whose result must be known to the processor before it can go on
_WAITS = {
    "tolist",
    "item",
    "nonzero",
    "numpy",
    "__bool__",
    "__int__",
    "__index__",
    "__float__",
    "unique",
    "masked_select",
}


class GpuCounter(TorchDispatchMode):
    """Within its `with` block: `kernels` counts operations that are no views, `waits` what waits, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._calls = _Calls(self.waits)

    def __enter__(self) -> GpuCounter:
        self._calls.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._calls.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if not func.is_view and name not in _FREE:
            self.kernels[name] += 1
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        kwargs = kwargs or {}
        if name in _WAITS and isinstance(args[0], torch.Tensor):
            self.waits[name] += 1
        if name == "repeat_interleave" and "output_size" not in kwargs:
            self.waits[name] += 1
        if name == "__getitem__" and any(
            _is_mask(part) for part in (args[1] if isinstance(args[1], tuple) else args[1:])
        ):
            self.waits["mask as index"] += 1
        return func(*args, **kwargs)


def _is_mask(part: Any) -> bool:
    return isinstance(part, torch.Tensor) and part.dtype == torch.bool
