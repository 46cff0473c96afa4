"""The parity cases: what the original release computes for a photo, in the checkout and in a larger set beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from support.reference_weights import reference_state_dict
from support.shared_data import SHARED

OWN = Path(__file__).resolve().parents[1] / "parity_cases"
LARGER = SHARED / "golden"


@dataclass(frozen=True)
class ParityCase:
    """One photo through one network of the original release."""

    folder: Path
    photo_root: Path

    @property
    def name(self) -> str:
        """For test ids: the set and the case."""
        return f"{self.photo_root.name}-{self.folder.name}"

    @cached_property
    def expected(self) -> dict[str, Any]:
        """The numbers that are no arrays; tests/parity_cases/README.md explains the keys."""
        return json.loads((self.folder / "expected.json").read_text())

    @cached_property
    def train(self) -> dict[str, Any] | None:
        """Targets, losses and gradient norms; None for a case without."""
        own = self.folder / "train.json"
        return json.loads(own.read_text()) if own.exists() else self.expected.get("train")

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The numbers that are arrays, by key."""
        with np.load(self.folder / "expected.npz") as file:
            return dict(file)

    @cached_property
    def photo(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        with Image.open(self.photo_root / self.expected["photo"]) as image:
            return np.array(image.convert("RGB"))

    @cached_property
    def shapes(self) -> dict[str, list[int]]:
        """The release's names of tensors and their shapes."""
        return json.loads((self.folder / "state_dict.json").read_text())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The stand-in for the release's checkpoint."""
        arrays = reference_state_dict(self.shapes, self.expected["num_classes"])
        return {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}

    def save_state_dict(self, path: Path) -> Path:
        """Write the stand-in as a downloaded `yolact_*.pth`; returns `path`."""
        torch.save(self.state_dict(), path)
        return path

    def sampled(self, key: str) -> tuple[np.ndarray, int]:
        """The array whose name starts with `key` and holds every n-th row and column, and n."""
        [name] = [name for name in self.arrays if name.startswith(key) and "every_" in name]
        return self.arrays[name], int(name.split("every_")[1].removesuffix("th"))


def own_case(config: str) -> ParityCase:
    """The case in the checkout of a config by name."""
    return ParityCase(OWN / config, OWN)


#: the cases of the checkout, then those of the larger set where it is present
CASES = [own_case(path.name) for path in sorted(OWN.iterdir()) if path.is_dir()] + [
    ParityCase(path, LARGER) for path in sorted((LARGER / "cases").glob("*")) if path.is_dir()
]
