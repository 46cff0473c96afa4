"""`yolact export` from options to files: survey the table, write its pieces, then write the files for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from jobs import storage
from jobs.export.formats import FORMATS
from jobs.export.formats.base import DocumentFormat, ExportOptions, Format
from jobs.export.formats.coco import Coco, CocoIds
from jobs.export.options import Destination, destination
from jobs.export.survey import PieceFacts, Selection, TableFacts, join_facts, survey_piece
from jobs.export.writing import Chunk, PieceWriter, write_document
from jobs.runtime.errors import UsageError
from jobs.runtime.progress import LabelProgress
from jobs.table.images import ImageSource
from jobs.table.pieces import piece_runner
from jobs.table.policy_file import read_policy
from jobs.table.read import LabelTable, Piece, open_labels
from jobs.table.record import RunRecord

if TYPE_CHECKING:
    from jobs.export.options import ExportConfig

#: unreadable images that the summary names
_NAMED = 3


@dataclass
class Written:
    """What an export wrote, and what it left out."""

    uri: str
    images: int = 0
    instances: int = 0
    failed: int = 0
    empty: int = 0
    unreadable: int = 0
    examples: list[str] = field(default_factory=list)
    finished: bool = True

    def add(self, chunk: Chunk) -> None:
        self.images += chunk.images
        self.instances += chunk.instances
        self.unreadable += len(chunk.unreadable)
        self.examples = [*self.examples, *chunk.unreadable][:_NAMED]

    def summary(self) -> str:
        lines = [f"wrote {self.instances:,} instances of {self.images:,} images to {self.uri}"]
        if self.failed:
            lines.append(f"left out {self.failed:,} images that the label job could not read")
        if self.empty:
            lines.append(f"left out {self.empty:,} instances whose mask has no pixel")
        if self.unreadable:
            lines.append(f"left out {self.unreadable:,} images that could not be copied: {'; '.join(self.examples)}")
        if not self.finished:
            lines.append("the labelling run has not finished: these are the parts it has published so far")
        return "\n".join(lines)


def export_labels(config: ExportConfig) -> Written:
    """Write the export that `config` describes. Raises `UsageError` for what cannot be done as asked."""
    policy = None if config.policy is None else read_policy(config.policy)
    table = open_labels(config.labels).under(policy)
    selection = Selection(config.min_score, frozenset(config.classes), config.min_area, config.max_area)
    target = destination(config)
    ids = _ids_from(config)
    if not config.overwrite:
        _refuse_leftovers(target)
    pieces = table.pieces(config.rows_per_task)
    with piece_runner(pieces, config.address) as runner:
        facts = join_facts(table, list(runner.over(partial(_survey, selection))), selection)
        format = _make_format(config, facts, ids, table, target)
        writer = PieceWriter(format, selection, ImageSource.of(table), target.folder)
        chunks: Iterable[Chunk] = runner.over(writer.write)
        if isinstance(format, DocumentFormat):
            chunks = write_document(format, chunks, target.document or f"{target.folder}/{format.default_name}")
        finished = table.finished or table.output is None
        written = Written(target.uri, failed=facts.failed, empty=facts.empty, finished=finished)
        with LabelProgress(facts.images, 0, "exporting") as progress:
            for chunk in chunks:
                written.add(chunk)
                progress.update(written.images + written.unreadable, "")
    for path, data in format.common_files():
        storage.put_atomic(f"{target.folder}/{path}", data)
    return written


def _survey(selection: Selection, number: int, piece: Piece) -> Iterator[PieceFacts]:
    yield survey_piece(piece, selection)


def _make_format(
    config: ExportConfig, facts: TableFacts, ids: CocoIds | None, table: LabelTable, target: Destination
) -> Format:
    kind = FORMATS[config.format]
    copies = kind.copies_by_default if config.pictures == "auto" else config.pictures == "copy"
    copied_prefix = None if storage.is_local(target.folder) else f"{target.folder}/"
    options = ExportOptions(config.segmentation, config.tolerance, copies, config.image_prefix, copied_prefix)
    model = (table.run or RunRecord()).model or "yolact"
    if issubclass(kind, Coco):
        return kind(facts, options, model, ids)
    return kind(facts, options, model)


def _ids_from(config: ExportConfig) -> CocoIds | None:
    if config.ids_from is None:
        return None
    try:
        return CocoIds.of(json.loads(storage.read_bytes(config.ids_from)), config.ids_from)
    except (ValueError, RecursionError):
        raise UsageError(f"--ids-from {config.ids_from}: not a JSON file") from None
    except storage.ObjectMissingError:
        raise UsageError(f"--ids-from {config.ids_from}: there is no such file") from None


def _refuse_leftovers(target: Destination) -> None:
    """Raise `UsageError` where the output already holds files, so that two exports are never mixed."""
    if target.document:
        there = storage.exists(target.document)
    else:
        there = next(iter(storage.iter_objects(target.folder)), None) is not None
    if there:
        raise UsageError(f"--output {target.uri} is not empty; choose another, or add --overwrite")
