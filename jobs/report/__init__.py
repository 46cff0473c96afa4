"""Write a page that shows how good the labels are: images with masks, a review queue, numbers, failures.

    yolact report s3://lake/labels --output report.html

The page is one HTML file without links to other files. Of a large table it shows a stratified sample of the images and
the most worrying ones; its numbers are of the whole table.
"""

from __future__ import annotations

from jobs.report.options import ReportConfig, check_options
from jobs.runtime.errors import EXIT_OK
from jobs.runtime.logs import configure_logging, run_id


def run(config: ReportConfig) -> int:
    """Write the page and print where it is; returns the exit code."""
    check_options(config)
    from jobs.report.command import write_report

    configure_logging(config.log_format, run_id(config.output))
    print(write_report(config))
    return EXIT_OK
