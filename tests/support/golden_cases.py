"""The parity cases of the development data; held-back ones are found where they are put beside the others."""

from __future__ import annotations

import json
import runpy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
CASES = sorted(path.name for path in (GOLDEN / "cases").glob("*") if path.is_dir()) or ["absent"]


@dataclass(frozen=True)
class GoldenCase:
    """One photo through the original release."""

    folder: Path

    @property
    def expected(self) -> dict:
        return json.loads((self.folder / "expected.json").read_text())

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "expected.npz") as file:
            return dict(file)

    @property
    def photo(self) -> np.ndarray:
        return np.array(Image.open(self.folder.parent.parent / self.expected["photo"]).convert("RGB"))

    def state_dict(self) -> dict[str, np.ndarray]:
        """The stand-in for the release's checkpoint."""
        shapes = json.loads((self.folder / "state_dict.json").read_text())
        reference = runpy.run_path(str(self.folder.parent.parent / "reference_weights.py"))["reference_state_dict"]
        return reference(shapes, self.expected["num_classes"])


def save_state_dict(state: dict[str, np.ndarray], path: Path) -> Path:
    """As a downloaded `yolact_*.pth`."""
    torch.save({name: torch.from_numpy(np.asarray(array)) for name, array in state.items()}, path)
    return path
