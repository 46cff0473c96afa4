"""Named training recipes: everything about a run that is not its data. A flag of `yolact train` overrides one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: "auto" is bfloat16 where a worker's device has instructions for it, else float32
Precision = Literal["auto", "float32", "bfloat16", "float16"]

#: learning rates are given for this many images per step and scaled linearly to others (the release's batch)
REFERENCE_BATCH = 8


@dataclass(frozen=True)
class TrainingRecipe:
    """Values of a recipe; steps count updates of the weights, whatever the number of workers."""

    max_steps: int
    batch_size: int
    """images per step over all workers"""
    optimizer: Literal["sgd", "adamw"]
    learning_rate: float
    """at 8 images per step"""
    weight_decay: float
    schedule: Literal["step", "cosine"]
    warmup_steps: int
    augmentation: Literal["none", "ssd", "microscopy"]
    window_size: int
    """side of the network input while training, of which a window of the picture is shown; 0 shows whole pictures at
    the config's input size"""
    pixels_per_window: int
    """an image gives a window per epoch for each so many pixels of its side; 0 gives one"""
    freeze_batch_norm: bool
    ema_decay: float
    """0 switches the weight average off"""
    clip_gradient: float
    """largest norm of the gradient; 0 switches clipping off"""
    precision: Precision
    max_masks_per_image: int
    """positives of an image that enter the mask loss"""
    validate_every: int
    """steps"""
    checkpoint_every: int
    """steps"""


RECIPES: dict[str, TrainingRecipe] = {
    # arXiv 1904.02689, section 5: 800k steps at 8 images, ÷10 at 280k, 600k, 700k and 750k
    "paper": TrainingRecipe(
        max_steps=800_000,
        batch_size=8,
        optimizer="sgd",
        learning_rate=1e-3,
        weight_decay=5e-4,
        schedule="step",
        warmup_steps=500,
        augmentation="ssd",
        window_size=0,
        pixels_per_window=0,
        freeze_batch_norm=True,
        ema_decay=0.0,
        clip_gradient=0.0,
        precision="float32",
        max_masks_per_image=100,
        validate_every=10_000,
        checkpoint_every=2_000,
    ),
    # for about an hour on two quiet cores; docs/training.md says what has been measured and what has not
    "nuclei": TrainingRecipe(
        max_steps=2000,
        batch_size=4,
        optimizer="adamw",
        learning_rate=1.4e-3,
        weight_decay=0.05,
        schedule="cosine",
        warmup_steps=100,
        augmentation="microscopy",
        window_size=384,
        pixels_per_window=300,
        freeze_batch_norm=True,
        ema_decay=0.998,
        clip_gradient=10.0,
        precision="auto",
        max_masks_per_image=300,
        validate_every=1000,
        checkpoint_every=200,
    ),
}
