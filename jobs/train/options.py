"""Options of `yolact train`, and the checks of them that need nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from jobs.runtime.errors import UsageError
from jobs.runtime.logs import LogFormat


@dataclass(frozen=True)
class TrainConfig:
    """Options of `yolact train`. Values left out come from the recipe."""

    annotations: str
    """COCO instances JSON, or the OUTPUT of `yolact label` to train on its masks (any fsspec URI)"""
    output: str = ""
    """folder or URI of the run: checkpoints, metrics and the final model; only --check goes without"""
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
    """leave broken annotations and images out instead of stopping"""
    check: bool = False
    """check annotations and image files, show what the data holds, and stop"""
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


def resolve_settings(config: TrainConfig) -> dict[str, Any]:
    """The flags as a dict, with the recipe's values where a flag was left out, and the scaled learning rate.

    Raises:
        UsageError: for an unknown recipe or values that cannot be.
    """
    model = config.config or config.init_weights
    name = config.recipe or (model if model in RECIPES else "paper")
    if name not in RECIPES:
        raise UsageError(f"recipe {name!r} is unknown; choose one of {', '.join(RECIPES)}")
    settings = asdict(config)
    for part in fields(TrainingRecipe):
        if settings.get(part.name) is None:
            settings[part.name] = getattr(RECIPES[name], part.name)
    settings["recipe"] = name
    for part_name in ("max_steps", "batch_size", "validate_every", "checkpoint_every", "log_every"):
        if settings[part_name] < 1:
            raise UsageError(f"--{part_name.replace('_', '-')} {settings[part_name]} must be at least 1")
    settings["peak_learning_rate"] = settings["learning_rate"] * settings["batch_size"] / REFERENCE_BATCH
    return settings


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
