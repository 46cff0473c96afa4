"""The two programs: how each is started, where its rows are, and which of its requests are steps of a commit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.object_store.proxy import Request


@dataclass(frozen=True)
class Place:
    """Where one program works: URIs of lake and OUTPUT, the number of images, the stand-in's weights and the GPUs."""

    lake: str
    output: str
    images: int
    weights: Path
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Program:
    """One of the programs. The functions say whether a request is the step that they are named after."""

    name: str
    command: Callable[[Place], list[str]]
    rows: str
    """the folder below OUTPUT that has the label table"""
    id_column: str
    error_column: str
    wrote_rows: Callable[[Request], bool]
    """the store has rows of some images; the program has not yet noted that they are done"""
    in_commit: Callable[[Request], bool]
    """the first of two requests that belong together is done"""


IMAGES_PER_BLOCK = 64


def _yolact_command(place: Place) -> list[str]:
    return _command("yolact_job", place, "--weights", str(place.weights))


def _ray_data_command(place: Place, *more: str) -> list[str]:
    blocks = -(-place.images // IMAGES_PER_BLOCK)
    return _command("ray_data_job", place, "--blocks", str(blocks), *more)


def _command(module: str, place: Place, *more: str) -> list[str]:
    places = [place.lake, place.output, "--cpus", str(place.cpus), "--gpus", str(place.gpus)]
    return [sys.executable, "-W", "ignore", "-m", f"benchmarks.against_ray_data.{module}", *places, *more]


def _wrote(folder: str) -> Callable[[Request], bool]:
    return lambda request: request.completes and folder in request.path and request.path.endswith(".parquet")


YOLACT = Program(
    name="yolact label",
    command=_yolact_command,
    rows="labels",
    id_column="image_id",
    error_column="error",
    wrote_rows=_wrote("/staging/"),
    # a part is published, and its units are still there
    in_commit=_wrote("/labels/"),
)


def ray_data(name: str = "Ray Data", arguments: Sequence[str] = ()) -> Program:
    """The Ray Data program with more `arguments` on its command line."""
    return Program(
        name=name,
        command=lambda place: _ray_data_command(place, *arguments),
        rows="data",
        id_column="path",
        error_column="error",
        wrote_rows=_wrote("/data/"),
        # a checkpoint is renamed by a copy and a deletion: the copy is made
        in_commit=lambda request: request.kind == "COPY" and request.status < 300,
    )


RAY_DATA = ray_data()
#: leaves out blocks that fail, where the plain program stops at the first one
RAY_DATA_LENIENT = ray_data("Ray Data, `max_errored_blocks=-1`", ("--max-errored-blocks", "-1"))
