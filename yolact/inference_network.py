"""The network as exporters and compilers take it: a module from one tensor to four."""

from __future__ import annotations

from torch import Tensor, nn

from yolact.model import Yolact

#: the four tensors, in order; shapes as in `RawPredictions`
OUTPUT_NAMES = ("box_deltas", "class_logits", "mask_coefficients", "prototypes")


class InferenceNetwork(nn.Module):
    """`Yolact.infer`: normalised images (B, 3, S, S) → the tensors of `OUTPUT_NAMES`."""

    def __init__(self, model: Yolact) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        raw = self.model.infer(images)
        return raw.box_deltas, raw.class_logits, raw.mask_coefficients, raw.prototypes
