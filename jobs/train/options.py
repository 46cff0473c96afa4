"""Options of `yolact train`, and the checks of them that need nothing heavy."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal

from jobs.runtime.errors import UsageError
from jobs.runtime.options import Address, LogFormatOption, PolicyUri, parse_count_range


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
    """weights to start from: imagenet, random, a config with shipped or published weights such as nuclei or
    yolact_base, or a file: backbone state dict, official release, own checkpoint"""
    recipe: str | None = None
    """paper or nuclei; None takes the recipe with the name of the config (or of the initial weights), else paper"""
    num_workers: str = "1"
    """training processes: N, or MIN:MAX to grow and shrink with the cluster"""
    cpus_per_worker: int | None = None
    """CPUs that each worker uses; None shares this machine's among the workers (1 with a GPU each)"""
    use_gpu: bool = False
    """give each worker a GPU (nccl); otherwise CPUs (gloo)"""
    loader_processes: int | None = None
    """processes per worker that read and augment images; 0 does it between the steps; None takes 1 on CPUs, and on GPUs
    all CPUs of the node but one per worker, at most 16; a GPU worker reserves a CPU for each"""
    policy: PolicyUri = None
    score_threshold: float = 0.5
    """with a label table: instances below this score are not learnt"""
    skip_broken: bool = False
    """leave broken annotations and images out instead of stopping"""
    check: bool = False
    """check annotations and image files, show what the data holds, and stop"""
    max_failures: int = 3
    """how often lost workers are restarted before the run gives up"""
    seed: int = 0
    """decides sample order, augmentation and random initial weights"""
    max_steps: int | None = None
    """length of the run; None takes the recipe's, divided as --batch-size is multiplied"""
    epochs: float | None = None
    """length of the run in passes over the training set, instead of --max-steps"""
    stop_after: int | None = None
    """end early after so many steps, with the schedule of the whole run (for tests and timings)"""
    batch_size: int | None = None
    """images per step over all workers; the learning rate is scaled with it"""
    optimizer: Literal["sgd", "adamw"] | None = None
    """sgd (paper) or adamw"""
    learning_rate: float | None = None
    """peak rate at 8 images per step"""
    weight_decay: float | None = None
    """per step, as the optimiser defines it"""
    schedule: Literal["step", "cosine"] | None = None
    """step divides by 10 at each of --milestones"""
    milestones: tuple[float, ...] | None = None
    """shares of the run, between 0 and 1 and rising; None takes 0.35 0.75 0.875 0.9375 (paper)"""
    warmup_steps: int | None = None
    """steps over which the rate rises from a tenth"""
    augmentation: Literal["none", "ssd", "microscopy"] | None = None
    """ssd is the paper's"""
    window_size: int | None = None
    """train on windows of the images, this many pixels wide and high, with objects as large as at the config's input
    size; 0 trains on whole images"""
    pixels_per_window: int | None = None
    """an image gives one window per epoch for this many pixels of its side; 0 gives one window per image"""
    freeze_batch_norm: bool | None = None
    """keep the backbone's batch norm as it is; None takes the recipe's: paper freezes it where fewer than 6 images fall
    on a worker, nuclei always"""
    ema_decay: float | None = None
    """share of the weight average that stays at each step; the average is validated and saved; 0 switches it off"""
    clip_gradient: float | None = None
    """largest norm of the gradient; 0 switches clipping off"""
    precision: Precision | None = None
    """of the network; losses are always float32; float16 uses a gradient scaler"""
    max_masks_per_image: int | None = None
    """most positive anchors of an image that enter the mask loss, instead of the config's"""
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
    log_format: LogFormatOption = "text"
    address: Address = "auto"


#: "auto" is bfloat16 where a worker's device has instructions for it, else float32
Precision = Literal["auto", "float32", "bfloat16", "float16"]

#: the release divides the learning rate by ten at 280k, 600k, 700k and 750k of 800k steps
PAPER_MILESTONES = (0.35, 0.75, 0.875, 0.9375)

#: recipes give learning rates for this many images per step, the release's batch; other batches scale them linearly
REFERENCE_BATCH = 8


@dataclass(frozen=True)
class TrainingRecipe:
    """Values that are not data. A step is one batch over all workers."""

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
    """side of the network input while training, which shows a window of the image; 0 shows whole images at the
    config's input size"""
    pixels_per_window: int
    """an image gives one window per epoch for this many pixels of its side; 0 gives one window per image"""
    freeze_batch_norm: bool | None
    """None freezes it where fewer than 6 images fall on a worker, as the release does"""
    ema_decay: float
    """0 switches the weight average off"""
    clip_gradient: float
    """largest norm of the gradient; 0 switches clipping off"""
    precision: Precision
    validate_every: int
    """steps"""
    checkpoint_every: int
    """steps"""


RECIPES: dict[str, TrainingRecipe] = {
    # arXiv 1904.02689, section 5: 800k steps of 8 images, learning rate ÷10 at 280k, 600k, 700k and 750k
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
        freeze_batch_norm=None,
        ema_decay=0.0,
        clip_gradient=0.0,
        precision="float32",
        validate_every=10_000,
        checkpoint_every=2_000,
    ),
    # about an hour on two quiet cores; docs/training.md says what was measured
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
        validate_every=1000,
        checkpoint_every=200,
    ),
}


@dataclass(frozen=True)
class TrainingSettings(TrainingRecipe):
    """All settings of a run: the values of the recipe or of the flags, and settings that no recipe has."""

    recipe: str
    """name of the recipe"""
    recipe_reason: str
    """why this recipe was chosen, in words"""
    peak_learning_rate: float
    """scaled to the batch size"""
    init_weights: str
    seed: int
    use_gpu: bool
    loader_processes: int
    """per worker; the command sets the usual number once it knows the cluster"""
    stop_after: int | None
    log_every: int
    milestones: tuple[float, ...]
    """of the schedule "step", shares of the run"""

    @property
    def last_step(self) -> int:
        """The step at which this command ends: before `max_steps` with `stop_after`."""
        return min(self.max_steps, self.stop_after or self.max_steps)


def resolve_settings(config: TrainConfig) -> TrainingSettings:
    """The flags, the recipe's values where a flag was left out, and the learning rate scaled to the batch.

    A batch of k times the recipe's images has k times the learning rate and, unless --max-steps is given, 1/k of the
    steps. The milestones of the schedule are shares of the steps, so they move with them.

    Raises:
        UsageError: for an unknown recipe or values that cannot be.
    """
    _check_length(config)
    name, reason = _recipe_of(config)
    recipe = RECIPES[name]
    flags = {part.name: getattr(config, part.name) for part in fields(TrainingRecipe)}
    chosen = replace(recipe, **{flag: value for flag, value in flags.items() if value is not None})
    for flag in ("max_steps", "batch_size", "validate_every", "checkpoint_every"):
        _at_least_one(flag, getattr(chosen, flag))
    _at_least_one("log_every", config.log_every)
    if config.loader_processes is not None and config.loader_processes < 0:
        raise UsageError(f"--loader-processes {config.loader_processes} must be at least 0")
    if config.max_masks_per_image is not None:
        _at_least_one("max_masks_per_image", config.max_masks_per_image)
    if config.max_steps is None:
        chosen = replace(chosen, max_steps=max(1, recipe.max_steps * recipe.batch_size // chosen.batch_size))
    return TrainingSettings(
        **asdict(chosen),
        recipe=name,
        recipe_reason=reason,
        peak_learning_rate=chosen.learning_rate * chosen.batch_size / REFERENCE_BATCH,
        init_weights=config.init_weights,
        seed=config.seed,
        use_gpu=config.use_gpu,
        loader_processes=1 if config.loader_processes is None else config.loader_processes,
        stop_after=config.stop_after,
        log_every=config.log_every,
        milestones=PAPER_MILESTONES if config.milestones is None else config.milestones,
    )


def steps_of_epochs(epochs: float, slots: int, batch_size: int) -> int:
    """Steps of so many passes over a training set that gives `slots` samples in each pass, rounded up."""
    return max(1, math.ceil(epochs * slots / batch_size))


def _check_length(config: TrainConfig) -> None:
    """Raises `UsageError` for a length or milestones that cannot be."""
    if config.epochs is not None:
        if config.max_steps is not None:
            raise UsageError("--epochs and --max-steps both give the length of the run; give one of them")
        if not 0 < config.epochs < math.inf:
            raise UsageError(f"--epochs {config.epochs} must be above 0")
    stones = config.milestones or ()
    if list(stones) != sorted(set(stones)) or not all(0 < stone < 1 for stone in stones):
        given = " ".join(map(str, stones))
        raise UsageError(f"--milestones {given} must be shares of the run: between 0 and 1, and rising")


def _recipe_of(config: TrainConfig) -> tuple[str, str]:
    """Name of the recipe and why it is this one. Raises `UsageError`."""
    if config.recipe is not None:
        if config.recipe not in RECIPES:
            raise UsageError(f"recipe {config.recipe!r} is unknown; choose one of {', '.join(RECIPES)}")
        return config.recipe, "--recipe"
    if config.config in RECIPES:
        return config.config, f"--config {config.config}"
    if config.config is None and config.init_weights in RECIPES:
        return config.init_weights, f"--init-weights {config.init_weights}"
    return "paper", "the default"


def _at_least_one(field: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"--{field.replace('_', '-')} {value} must be at least 1")


def check_workers(config: TrainConfig, settings: TrainingSettings) -> tuple[int, int]:
    """The least and the largest number of workers.

    Raises:
        UsageError: if the number cannot be read, or if the batch cannot be shared by so many.
    """
    workers = parse_count_range("--num-workers", config.num_workers)
    if workers[1] > settings.batch_size:
        raise UsageError(
            f"--num-workers {config.num_workers}: a batch of {settings.batch_size} images cannot be shared by "
            f"{workers[1]} workers; use at most {settings.batch_size}, or a larger --batch-size"
        )
    if settings.freeze_batch_norm is False and workers[1] > 1 and not config.use_gpu:
        raise UsageError("only GPU workers can share batch norm: use --freeze-batch-norm True, or one worker")
    return workers
