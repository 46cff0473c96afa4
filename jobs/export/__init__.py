"""Export a label table to COCO, YOLO, Label Studio, PNG masks, GeoJSON, WebDataset or FiftyOne.

    yolact export s3://lake/labels --output s3://lake/coco --format coco --min-score 0.5

Failed pictures are left out. Pictures without an instance stay in, as pictures with nothing on them.
"""

from __future__ import annotations

from jobs.export.options import ExportConfig
from jobs.runtime.errors import EXIT_OK, EXIT_TOO_MANY_BAD_IMAGES, UsageError
from jobs.runtime.logs import configure_logging, run_id


def run(config: ExportConfig) -> int:
    """Write the export; returns the exit code (3 if pictures to be copied could not be had)."""
    from jobs.export.command import export_labels

    if not 0 <= config.min_score <= 1:
        raise UsageError(f"--min-score {config.min_score}: must lie between 0 and 1")
    if config.tolerance < 0:
        raise UsageError(f"--tolerance {config.tolerance}: must be 0 or more pixels")
    if config.rows_per_task < 1:
        raise UsageError(f"--rows-per-task {config.rows_per_task}: must be at least 1")
    configure_logging(config.log_format, run_id(config.output))
    written = export_labels(config)
    print(written.summary())
    return EXIT_TOO_MANY_BAD_IMAGES if written.unreadable else EXIT_OK
