"""Options of `yolact label`, and the checks of them that need nothing heavy."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from jobs import storage
from jobs.runtime.errors import UsageError
from jobs.runtime.options import (
    Address,
    BatchSize,
    Device,
    Engine,
    LogFormatOption,
    ModelName,
    NumActors,
    PolicyUri,
    Precision,
    ScoreThreshold,
    Weights,
    check_at_least,
    check_shares,
    parse_count_range,
)
from yolact.images.tile_config import LARGEST_OVERLAP, SMALLEST_TILE, TileConfig


@dataclass(frozen=True)
class LabelConfig:
    """Options of `yolact label`; `run(LabelConfig(...))` does what the command does."""

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """URIs of folders or prefixes of images, of tar shards ({000..099} and globs work), or Parquet with image bytes."""
    output: str
    """Folder or prefix that gets labels/, manifest/, run.json and _SUCCESS; any fsspec URI."""
    config: ModelName = None
    weights: Weights = None
    policy: PolicyUri = None
    score_threshold: ScoreThreshold = 0.15
    max_detections: int | None = None
    """Most instances of one image, or of one tile; the model's own number (100 for the COCO models) if not given."""
    nms: Literal["fast", "fast-cross-class", "standard"] | None = None
    """Which non-maximum suppression; the model's own (fast for the COCO models, standard for nuclei) if not given."""
    tile: int | None = None
    """Cut images that are larger than this into square tiles of so many pixels, for small objects in large images."""
    tile_overlap: float = 0.2
    """Share of a tile that the next one shows too (0 to 0.5): more than the usual object."""
    tile_whole_image: bool = True
    """With --tile: also label each image as a whole, for objects that are larger than a tile."""
    tiled_max_detections: int | None = None
    """With --tile: most instances of an image that is cut; no limit if not given."""
    precision: Precision = "auto"
    engine: Engine = "auto"
    device: Device = "auto"
    batch_size: BatchSize = None
    num_actors: NumActors = None
    max_error_rate: float = 0.01
    """Exit code 3 if more than this share of the images failed (0 to 1)."""
    limit: int | None = None
    """Label only the first so many images of the lake; such an output stays a trial and cannot be completed later."""
    max_pixels: int = 178_956_970
    """Images with more pixels (height × width) become rows of status too_large."""
    max_bytes: int = 256 << 20
    """Images of more bytes become rows of status too_large without being read."""
    relabel_changed: bool = False
    """Label again what was replaced in place since it was indexed; otherwise it is reported and left as it is."""
    image_column: str | None = None
    """The column of image bytes of Parquet files, or of the URIs of a list; found by name if not given."""
    id_column: str | None = None
    """Parquet input: the column of ids; found by name if not given."""
    any_name: bool = False
    """Take files of every name for images, but for .json, .txt and the like; otherwise their extension tells."""
    images_per_unit: int | None = None
    """Images committed at once; 64, and fewer in a small lake, if not given."""
    images_per_part: int = 65_536
    """Images of one published file, about."""
    log_format: LogFormatOption = "text"
    address: Address = "auto"


log = logging.getLogger(__name__)


def check_options(config: LabelConfig) -> None:
    """Raise `UsageError` for values no run can have."""
    if not config.output.strip():
        raise UsageError("--output is empty (a shell variable that is not set?)")
    for uri in (*config.inputs, config.output):
        if storage.holds_credentials(uri):
            raise UsageError(
                f"{storage.without_credentials(uri)}: ids are made from addresses, so none may hold a password or a "
                "signature; give credentials by the environment or the store's own files"
            )
    if storage.split_uri(config.output)[0] == "hf":
        raise UsageError(
            f"--output {config.output}: each object would be a commit of a Hugging Face repository; write to an object "
            "store or a disk, and upload the finished labels"
        )
    if config.num_actors is not None:
        parse_count_range("--num-actors", config.num_actors)
    if config.precision == "int8" and (config.engine not in ("auto", "openvino") or config.device == "cuda"):
        raise UsageError("--precision int8 runs by openvino on CPUs alone: leave --engine and --device to auto")
    _check_tiles(config)
    check_shares(config, "score_threshold", "max_error_rate")
    check_at_least(
        config,
        1,
        *("max_detections", "batch_size", "limit", "max_pixels", "max_bytes", "images_per_unit", "images_per_part"),
    )


def tile_config(config: LabelConfig) -> TileConfig | None:
    """How images are cut; None without `--tile`. The options were checked by `check_options`."""
    if config.tile is None:
        return None
    return TileConfig(config.tile, config.tile_overlap, config.tile_whole_image, config.tiled_max_detections)


def _check_tiles(config: LabelConfig) -> None:
    if config.tile is None:
        given = (config.tile_overlap, config.tile_whole_image, config.tiled_max_detections)
        if given != (LabelConfig.tile_overlap, LabelConfig.tile_whole_image, LabelConfig.tiled_max_detections):
            raise UsageError("the options of tiles need --tile, the side of a tile in pixels")
        return
    check_at_least(config, SMALLEST_TILE, "tile")
    check_at_least(config, 1, "tiled_max_detections")
    # `not <=`, so that NaN is refused too
    if not 0 <= config.tile_overlap <= LARGEST_OVERLAP:
        raise UsageError(f"--tile-overlap {config.tile_overlap}: must lie between 0 and {LARGEST_OVERLAP}")
