"""`yolact export` from options to files: survey the table, write its pieces, then what stands around them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from jobs import storage
from jobs.export.formats import FORMATS
from jobs.export.formats.base import DocumentFormat, ExportOptions, Format
from jobs.export.formats.coco import Coco, CocoIds, CocoResults
from jobs.export.formats.label_studio import LabelStudio
from jobs.export.survey import PieceFacts, Selection, TableFacts, join_facts, survey_piece
from jobs.export.writing import Chunk, PieceWriter, write_document
from jobs.runtime.errors import UsageError
from jobs.runtime.progress import LabelProgress
from jobs.table.pictures import PictureSource
from jobs.table.pieces import piece_runner
from jobs.table.read import LabelTable, Piece, open_labels
from jobs.table.record import RunRecord

if TYPE_CHECKING:
    from jobs.export.options import ExportConfig

#: unreadable pictures that the summary names
_NAMED = 3


@dataclass
class Written:
    """What an export wrote, and what it left out."""

    uri: str
    pictures: int = 0
    instances: int = 0
    failed: int = 0
    empty: int = 0
    unreadable: int = 0
    examples: list[str] = field(default_factory=list)
    finished: bool = True

    def add(self, chunk: Chunk) -> None:
        self.pictures += chunk.pictures
        self.instances += chunk.instances
        self.unreadable += len(chunk.unreadable)
        self.examples = [*self.examples, *chunk.unreadable][:_NAMED]

    def summary(self) -> str:
        lines = [f"wrote {self.instances:,} instances of {self.pictures:,} pictures to {self.uri}"]
        if self.failed:
            lines.append(f"left out {self.failed:,} pictures that the label job could not read")
        if self.empty:
            lines.append(f"left out {self.empty:,} instances whose mask has no pixel")
        if self.unreadable:
            lines.append(f"left out {self.unreadable:,} pictures that could not be copied: {'; '.join(self.examples)}")
        if not self.finished:
            lines.append("the labelling run has not finished: these are the parts it has published so far")
        return "\n".join(lines)


def export_labels(config: ExportConfig) -> Written:
    """Write the export that `config` describes. Raises `UsageError` for what cannot be done as asked."""
    table = open_labels(config.labels)
    selection = Selection(config.min_score, frozenset(config.classes), config.min_area, config.max_area)
    _check_options(config)
    output, document = _destination(config)
    ids = _ids_from(config)
    if not config.overwrite:
        _refuse_leftovers(output, document)
    pieces = table.pieces(config.rows_per_task)
    with piece_runner(pieces, config.address) as runner:
        facts = join_facts(table, list(runner.over(partial(_survey, selection))), selection)
        format = _make_format(config, facts, ids, table)
        writer = PieceWriter(format, selection, PictureSource.of(table), output)
        chunks: Iterable[Chunk] = runner.over(writer.write)
        if isinstance(format, DocumentFormat):
            chunks = write_document(format, chunks, document or f"{output}/{format.default_name}")
        finished = table.finished or table.output is None
        written = Written(document or output, failed=facts.failed, empty=facts.empty, finished=finished)
        with LabelProgress(facts.pictures, 0, "exporting") as progress:
            for chunk in chunks:
                written.add(chunk)
                progress.update(written.pictures + written.unreadable, "")
    for path, data in format.common_files():
        storage.put_atomic(f"{output}/{path}", data)
    return written


def _survey(selection: Selection, number: int, piece: Piece) -> Iterator[PieceFacts]:
    yield survey_piece(piece, selection)


def _make_format(config: ExportConfig, facts: TableFacts, ids: CocoIds | None, table: LabelTable) -> Format:
    kind = FORMATS[config.format]
    copies = kind.copies_by_default if config.pictures == "auto" else config.pictures == "copy"
    options = ExportOptions(config.segmentation, config.tolerance, copies, config.image_prefix, _copied_prefix(config))
    model = (table.run or RunRecord()).model or "yolact"
    if issubclass(kind, Coco):
        return kind(facts, options, model, ids)
    return kind(facts, options, model)


def _copied_prefix(config: ExportConfig) -> str | None:
    """The output's own address where it is an object store; None on a local disk."""
    folder, _ = _destination(config)
    return None if storage.is_local(folder) else f"{folder}/"


def _destination(config: ExportConfig) -> tuple[str, str | None]:
    """The folder to write into, and the JSON file where the user named one."""
    output = config.output.rstrip("/")
    if not output.endswith(".json"):
        return output, None
    if not issubclass(FORMATS[config.format], DocumentFormat):
        raise UsageError(f"--output {output}: {config.format} is a folder of files; name a folder")
    folder, slash, _ = output.rpartition("/")
    return folder if slash else ".", output


def _check_options(config: ExportConfig) -> None:
    kind = FORMATS[config.format]
    if config.pictures == "copy" and not kind.takes_pictures:
        raise UsageError(f"--pictures copy: {config.format} has no place for pictures; leave it out")
    if config.image_prefix is not None and not issubclass(kind, LabelStudio):
        raise UsageError(f"--image-prefix: {config.format} names no image by an address; leave it out")
    if config.segmentation == "polygons" and issubclass(kind, CocoResults):
        raise UsageError("--segmentation polygons: COCO's loadRes reads run lengths alone; leave it out")
    if config.ids_from and not issubclass(kind, Coco):
        raise UsageError(f"--ids-from: {config.format} has no ids of COCO's; leave it out")


def _ids_from(config: ExportConfig) -> CocoIds | None:
    if config.ids_from is None:
        return None
    try:
        return CocoIds.of(json.loads(storage.read_bytes(config.ids_from)), config.ids_from)
    except (ValueError, RecursionError):
        raise UsageError(f"--ids-from {config.ids_from}: not a JSON file") from None
    except storage.ObjectMissingError:
        raise UsageError(f"--ids-from {config.ids_from}: there is no such file") from None


def _refuse_leftovers(output: str, document: str | None) -> None:
    """Raise `UsageError` where something stands that this export could be mixed up with."""
    there = storage.exists(document) if document else next(iter(storage.iter_objects(output)), None) is not None
    if there:
        raise UsageError(f"--output {document or output} is not empty; choose another, or add --overwrite")
