"""Train or fine-tune a model on COCO annotations or on a label table, on one machine or many.

    yolact train --annotations instances_train.json --images train/ --val-annotations instances_val.json \\
        --val-images val/ --config nuclei --init-weights mobilenet_v2_features.pth --output runs/nuclei

OUTPUT then holds `best.safetensors` (by mask AP) and `last.safetensors` for `--weights`, `metrics.jsonl`,
`tensorboard/` and Ray Train's checkpoints. The same command goes on after any interruption, also with another number
of workers.
Hardware: `nuclei` is meant for 2 CPU cores and an hour, the paper's recipe for days on a GPU. What has been measured of
either stands in docs/training.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.logs import LogFormat
from jobs.training.recipes import Precision


@dataclass(frozen=True)
class TrainConfig:
    """Options of `yolact train`. Values left out come from the recipe."""

    annotations: str
    """COCO instances JSON, or the OUTPUT of `yolact label` to train on its masks (any fsspec URI)"""
    output: str
    """folder or URI of the run: checkpoints, metrics and the final model"""
    config: str | None = None
    """model config, e.g. nuclei or yolact_resnet50, or a JSON file of one; its classes become those of the annotations;
    may be left out where --init-weights names a config or is an own checkpoint"""
    images: str | None = None
    """folder or URI with the images; may be left out for a label table, which knows where they are"""
    val_annotations: str | None = None
    """COCO instances JSON to validate on"""
    val_images: str | None = None
    """folder or URI with the validation images"""
    init_weights: str = "imagenet"
    """where to start: imagenet, random, a config with shipped or published weights such as nuclei or yolact_base, or a
    file: backbone state dict, official release, own checkpoint"""
    recipe: str | None = None
    """paper or nuclei; None takes the recipe named like the config (or the initial weights), else paper"""
    num_workers: str = "1"
    """training processes: N, or MIN:MAX to grow and shrink with the cluster"""
    cpus_per_worker: int | None = None
    """CPUs that each worker uses; None shares this machine's among the workers (1 with a GPU each)"""
    use_gpu: bool = False
    """give each worker a GPU (nccl); otherwise CPUs (gloo)"""
    loader_processes: int = 1
    """processes per worker that read and augment images; 0 does it in between the steps"""
    score_threshold: float = 0.5
    """with a label table: instances below this score are not learnt"""
    skip_broken: bool = False
    """leave broken annotations and missing images out instead of stopping"""
    max_failures: int = 3
    """how often lost workers are restarted before the run gives up"""
    seed: int = 0
    """of sample order, augmentation and initial weights"""
    max_steps: int | None = None
    """updates of the weights"""
    stop_after: int | None = None
    """end early after so many steps, with the schedule of the whole run (for tests and timings)"""
    batch_size: int | None = None
    """images per step over all workers; the learning rate is scaled to it linearly"""
    optimizer: Literal["sgd", "adamw"] | None = None
    """sgd (paper) or adamw"""
    learning_rate: float | None = None
    """peak rate at 8 images per step"""
    weight_decay: float | None = None
    """per step, as the optimiser defines it"""
    schedule: Literal["step", "cosine"] | None = None
    """step divides by 10 at 35, 75, 87.5 and 93.75 % of the run (paper)"""
    warmup_steps: int | None = None
    """steps over which the rate rises from a tenth"""
    augmentation: Literal["none", "ssd", "microscopy"] | None = None
    """ssd is the paper's"""
    window_size: int | None = None
    """train on windows of the pictures at this input side, objects as large as at the config's; 0: whole ones"""
    pixels_per_window: int | None = None
    """an image gives a window per epoch for each so many pixels of its side; 0: one"""
    freeze_batch_norm: bool | None = None
    """keep the backbone's batch norm as it was trained"""
    ema_decay: float | None = None
    """of the weight average that is validated and saved; 0 switches it off"""
    clip_gradient: float | None = None
    """largest norm of the gradient; 0 switches clipping off"""
    precision: Precision | None = None
    """of the network; losses are always float32; float16 uses a gradient scaler"""
    max_masks_per_image: int | None = None
    """positives of an image that enter the mask loss"""
    num_prototypes: int | None = None
    """prototypes instead of the config's"""
    semantic_loss: bool = True
    """train the semantic segmentation layer as well"""
    validate_every: int | None = None
    """steps between validations"""
    checkpoint_every: int | None = None
    """steps between checkpoints"""
    log_every: int = 10
    """steps between lines on the terminal and in metrics.jsonl"""
    log_format: LogFormat = "text"
    """text for people, or json lines with the run's id on stderr for a log collector"""
    address: str = "auto"
    """Ray: auto, local or ray://host:port"""


def run(config: TrainConfig) -> int:
    """Train until done; returns the exit code."""
    from jobs.training.run import run_training

    return run_training(config)
