"""The results as Markdown: counts of what went wrong, speeds, and memory at a resume."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.against_ray_data.memory import Resume
from benchmarks.against_ray_data.scenarios import SCENARIOS
from benchmarks.against_ray_data.trial import Result


def counts_table(results: Sequence[Result], *, timed: bool) -> str:
    """One line for each program in each scenario. Without `timed` there is nothing that depends on the machine."""
    titles = {scenario.name: scenario.title for scenario in SCENARIOS}
    head = ["what happens", "program", "starts, exit codes", "rows lost", "rows doubled", "torn reads"]
    rows = [
        [
            titles[result.scenario],
            result.program,
            ", ".join(map(str, result.exit_codes)),
            f"{result.lost}",
            f"{result.doubled}",
            f"{result.torn_files + result.torn_ids}",
            *([_seconds(result.resume_seconds)] if timed else []),
        ]
        for result in results
    ]
    return _markdown([*head, *(["seconds to resume"] if timed else [])], rows)


def speed_table(results: Sequence[Result], images: int) -> str:
    """The calm scenario: what an image costs beside the GPUs, and how busy they were."""
    calm = [result for result in results if result.scenario == SCENARIOS[0].name]
    rows = [
        ["process start to first rows, s", *(_seconds(result.first_rows_seconds) for result in calm)],
        ["GPUs busy from their first batch to their last", *(f"{result.busy:.1%}" for result in calm)],
        ["overhead, ms an image", *(_number(result.overhead_ms) for result in calm)],
        ["CPU-ms an image, all processes", *(_number(result.cpu_ms) for result in calm)],
        ["driver, peak MB", *(f"{result.driver_peak_mb:.0f}" for result in calm)],
        ["all processes, peak MB", *(f"{result.all_peak_mb:.0f}" for result in calm)],
    ]
    return _markdown([f"{images:,} images", *(result.program for result in calm)], rows)


def memory_table(resumes: Sequence[Resume]) -> str:
    """Time and memory of a resume."""
    rows = [
        [r.program, f"{r.ids:,}", _seconds(r.seconds), f"{r.driver_peak_mb:.0f}", f"{r.all_peak_mb:.0f}"]
        for r in resumes
    ]
    return _markdown(
        ["program", "ids that are done", "s to the first new rows", "driver, peak MB", "all, peak MB"], rows
    )


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
