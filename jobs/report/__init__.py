"""Make a page that shows how good the labels are: pictures with masks, what to review first, numbers, failures.

    yolact report s3://lake/labels --output report.html

One HTML file without any link to the outside. At any size of table it shows a stratified sample and the worst pictures;
its numbers are of the whole table.
"""

from __future__ import annotations

from jobs.report.options import ReportConfig
from jobs.runtime.errors import EXIT_OK, UsageError
from jobs.runtime.logs import configure_logging, run_id


def run(config: ReportConfig) -> int:
    """Write the page; returns the exit code."""
    from jobs.report.command import write_report

    for name in ("samples", "review", "prototypes"):
        if getattr(config, name) < 0:
            raise UsageError(f"--{name} {getattr(config, name)}: must be 0 or more")
    if config.samples + config.review > 5000:
        raise UsageError(f"--samples {config.samples}: a page holds 5,000 pictures at most")
    if config.rows_per_task < 1:
        raise UsageError(f"--rows-per-task {config.rows_per_task}: must be at least 1")
    configure_logging(config.log_format, run_id(config.output))
    print(write_report(config))
    return EXIT_OK
