"""Make a page that shows how good the labels are: pictures with masks, what to review first, numbers, failures.

    yolact report s3://lake/labels --output report.html

One HTML file without any link to the outside. At any size of table it shows a stratified sample and the worst pictures;
its numbers are of the whole table.
"""

from __future__ import annotations

from jobs.report.options import ReportConfig, check_options
from jobs.runtime.errors import EXIT_OK
from jobs.runtime.logs import configure_logging, run_id


def run(config: ReportConfig) -> int:
    """Write the page; returns the exit code."""
    check_options(config)
    from jobs.report.command import write_report

    configure_logging(config.log_format, run_id(config.output))
    print(write_report(config))
    return EXIT_OK
