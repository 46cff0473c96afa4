"""From a label table to everything the page shows, in passes over its pieces: numbers, review queue, pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.report.cards import CardMaker, Pick
from jobs.report.review import Reviewer, Suspect, worst
from jobs.report.sampling import Candidate, Sampler
from jobs.report.statistics import NUMBER_COLUMNS, Numbers, numbers_of_batch
from jobs.report.truth import GroundTruth, Scores
from jobs.table.pictures import PictureSource
from jobs.table.pieces import PieceRunner, piece_runner
from jobs.table.read import LabelRow, LabelTable, Piece
from jobs.table.record import RunRecord

_BATCH_ROWS = 4096
#: thumbnails of all pictures together, before base64 makes a third more of them
_PAGE_BYTES = 20_000_000
_SIDES = {120: 960, 300: 720}
_LEAST_SIDE = 560
#: a page with a picture missing is better than no page
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class ReportContent:
    """Everything that the page shows. `strata` is, by stratum, how many pictures there are and how many are shown."""

    numbers: Numbers
    cards: list[dict[str, Any]]
    strata: dict[str, tuple[int, int]]
    seed: int
    side: int
    scores: Scores | None


@dataclass
class _Survey:
    """First pass: numbers, sample and names of a piece, or of all."""

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
    """Rows whose pictures the ground truth has; of a large table these are few."""

    truth: GroundTruth

    def __call__(self, number: int, piece: Piece) -> Iterator[LabelRow]:
        return (row for row in piece.images() if self.truth.find(row) is not None)


def build_report(
    table: LabelTable,
    *,
    samples: int,
    review: int,
    seed: int,
    truth: GroundTruth | None,
    rows_per_task: int,
    address: str,
) -> ReportContent:
    """Read the table's small columns twice, and the rows and pictures that the page shows."""
    pieces = table.pieces(rows_per_task)
    with piece_runner(pieces, address) as runner:
        survey = _survey(runner, _SurveyPiece(samples, seed))
        suspects = _review(runner, survey.numbers, table, review)
        chosen = survey.sampler.chosen()
        picks = make_picks(chosen, suspects)
        shown = sum(map(len, picks.values()))
        maker = CardMaker(
            PictureSource.of(table, patience_seconds=_PATIENCE_SECONDS),
            side=next((side for most, side in _SIDES.items() if shown <= most), _LEAST_SIDE),
            most_bytes=_PAGE_BYTES // max(shown, 1),
            truth=truth,
        )
        cards = list(runner.over(_CardPiece(maker, picks)))
        scores = None
        if truth is not None:
            scores = truth.score(runner.over(_KnownRows(truth)))
    strata = {name: (survey.sampler.strata[name].size, len(picked)) for name, picked in chosen.items()}
    return ReportContent(survey.numbers, cards, strata, seed, maker.side, scores)


def _survey(runner: PieceRunner, work: _SurveyPiece) -> _Survey:
    whole = work.empty()
    for survey in runner.over(work):
        whole.add(survey)
    return whole


def _review(runner: PieceRunner, numbers: Numbers, table: LabelTable, most: int) -> list[Suspect]:
    if most == 0:
        return []
    limit = (table.run or RunRecord()).thresholds.max_detections
    work = _ReviewPiece(Reviewer(numbers.size_medians(), limit), most)
    return worst((suspect for suspects in runner.over(work) for suspect in suspects), most)


def make_picks(chosen: Mapping[str, Sequence[Candidate]], suspects: Iterable[Suspect]) -> dict[int, list[Pick]]:
    """Which rows of which piece to show; a picture may stand in the sample and in the review queue."""
    picks: dict[tuple[int, int], dict[str, Any]] = defaultdict(dict)
    # by rank, so that the strata are mixed
    for place, candidate in enumerate(sorted(c for candidates in chosen.values() for c in candidates)):
        picks[candidate.piece, candidate.row]["sampled"] = place
    for place, suspect in enumerate(suspects):
        picks[suspect.piece, suspect.row].update(reviewed=place, worry=suspect.worry, reasons=suspect.reasons)
    pieces: dict[int, list[Pick]] = defaultdict(list)
    for (piece, row), values in picks.items():
        pieces[piece].append(Pick(row, **values))
    return dict(pieces)
