"""Reads from a label table all that the page shows, in passes over its pieces: numbers, review queue, images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.report.cards import CardMaker, Pick
from jobs.report.options import ReportConfig
from jobs.report.review import Reviewer, Suspect, worst
from jobs.report.sampling import Candidate, Sampler
from jobs.report.statistics import NUMBER_COLUMNS, Numbers, numbers_of_batch
from jobs.report.truth import GroundTruth, Scores
from jobs.table.images import ImageSource
from jobs.table.pieces import PieceRunner, piece_runner
from jobs.table.read import LabelRow, LabelTable, Piece
from jobs.table.record import RunRecord

_BATCH_ROWS = 4096
#: bytes of all thumbnails together; base64 then adds a third
_PAGE_BYTES = 20_000_000
#: images on a page, up to which thumbnails have this longest side in pixels
_SIDES = {120: 960, 300: 720}
_LEAST_SIDE = 560
#: seconds to wait for an image: a page without it is better than no page
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class ReportContent:
    """Everything that the page shows. `strata` has, by stratum, how many images it holds and how many are shown."""

    numbers: Numbers
    cards: list[dict[str, Any]]
    strata: dict[str, tuple[int, int]]
    seed: int
    side: int
    scores: Scores | None


@dataclass
class _Survey:
    """The result of the first pass, for one piece or for all: the numbers, and the candidates for the sample."""

    numbers: Numbers
    sampler: Sampler

    def add(self, other: _Survey) -> None:
        self.numbers.add(other.numbers)
        self.sampler.add(other.sampler)


@dataclass(frozen=True)
class _SurveyPiece:
    samples: int
    seed: int

    def empty(self) -> _Survey:
        return _Survey(Numbers(), Sampler(self.samples, self.seed))

    def __call__(self, number: int, piece: Piece) -> Iterator[_Survey]:
        survey = self.empty()
        row = 0
        for batch in piece.batches(NUMBER_COLUMNS, _BATCH_ROWS):
            survey.numbers.add(numbers_of_batch(batch))
            survey.sampler.add_batch(batch, number, row)
            row += batch.num_rows
        yield survey


@dataclass(frozen=True)
class _ReviewPiece:
    reviewer: Reviewer
    most: int

    def __call__(self, number: int, piece: Piece) -> Iterator[list[Suspect]]:
        yield worst(self._suspects(number, piece), self.most)

    def _suspects(self, number: int, piece: Piece) -> Iterator[Suspect]:
        row = 0
        for batch in piece.batches(NUMBER_COLUMNS, _BATCH_ROWS):
            yield from self.reviewer.judge_batch(batch, number, row)
            row += batch.num_rows


@dataclass(frozen=True)
class _CardPiece:
    maker: CardMaker
    picks: dict[int, list[Pick]]

    def __call__(self, number: int, piece: Piece) -> Iterator[dict[str, Any]]:
        if number in self.picks:
            yield from self.maker.cards(piece, self.picks[number])


@dataclass(frozen=True)
class _KnownRows:
    """The rows whose images are in the ground truth. In a large table these are few."""

    truth: GroundTruth

    def __call__(self, number: int, piece: Piece) -> Iterator[LabelRow]:
        return (row for row in piece.images() if self.truth.find(row) is not None)


def build_report(table: LabelTable, config: ReportConfig, truth: GroundTruth | None) -> ReportContent:
    """Read the table's small columns twice, then the rows and images that the page shows.

    `config` gives the sizes of sample and queue, the seed, and how to run; its addresses of files are not read. `truth`
    is the ground truth to compare the labels with, or None.
    """
    pieces = table.pieces(config.rows_per_task)
    with piece_runner(pieces, config.address) as runner:
        survey = _survey(runner, _SurveyPiece(config.samples, config.seed))
        suspects = _review(runner, survey.numbers, table, config.review)
        chosen = survey.sampler.chosen()
        picks = make_picks(chosen, suspects)
        shown = sum(map(len, picks.values()))
        maker = CardMaker(
            ImageSource.of(table, patience_seconds=_PATIENCE_SECONDS),
            side=next((side for most, side in _SIDES.items() if shown <= most), _LEAST_SIDE),
            most_bytes=_PAGE_BYTES // max(shown, 1),
            truth=truth,
        )
        cards = list(runner.over(_CardPiece(maker, picks)))
        scores = None
        if truth is not None:
            scores = truth.score(runner.over(_KnownRows(truth)))
    strata = {name: (survey.sampler.strata[name].size, len(picked)) for name, picked in chosen.items()}
    return ReportContent(survey.numbers, cards, strata, config.seed, maker.side, scores)


def _survey(runner: PieceRunner, work: _SurveyPiece) -> _Survey:
    whole = work.empty()
    for survey in runner.over(work):
        whole.add(survey)
    return whole


def _review(runner: PieceRunner, numbers: Numbers, table: LabelTable, most: int) -> list[Suspect]:
    if most == 0:
        return []
    limit = most_instances(table.run or RunRecord())
    work = _ReviewPiece(Reviewer(numbers.size_medians(), limit), most)
    return worst((suspect for suspects in runner.over(work) for suspect in suspects), most)


def most_instances(run: RunRecord) -> int | None:
    """The limit of instances of an image; None if there is none, or if it is not known."""
    if "tile" in run.identity:
        # the usual limit is then that of a tile
        limit: int | None = run.identity["tiled_max_detections"]
        return limit
    return run.thresholds.max_detections


def make_picks(chosen: Mapping[str, Sequence[Candidate]], suspects: Iterable[Suspect]) -> dict[int, list[Pick]]:
    """By piece, the rows to show. An image may be in the sample and in the review queue."""
    picks: dict[tuple[int, int], dict[str, Any]] = defaultdict(dict)
    # sorted by rank, which mixes the strata
    for place, candidate in enumerate(sorted(c for candidates in chosen.values() for c in candidates)):
        picks[candidate.piece, candidate.row]["sampled"] = place
    for place, suspect in enumerate(suspects):
        picks[suspect.piece, suspect.row].update(reviewed=place, worry=suspect.worry, reasons=suspect.reasons)
    pieces: dict[int, list[Pick]] = defaultdict(list)
    for (piece, row), values in picks.items():
        pieces[piece].append(Pick(row, **values))
    return dict(pieces)
