"""Export a label table to COCO, YOLO, Label Studio, PNG masks, GeoJSON, WebDataset or FiftyOne.

    yolact export s3://lake/labels --output s3://lake/coco --format coco --min-score 0.5

Images that the label job could not read are left out. Images without an instance stay in.
"""

from __future__ import annotations

from jobs.export.options import ExportConfig, check_options
from jobs.runtime.errors import EXIT_OK, EXIT_TOO_MANY_BAD_IMAGES
from jobs.runtime.logs import configure_logging, run_id


def run(config: ExportConfig) -> int:
    """Write the export and print its summary; returns the exit code (3 if an image could not be copied)."""
    check_options(config)
    from jobs.export.command import export_labels

    configure_logging(config.log_format, run_id(config.output))
    written = export_labels(config)
    print(written.summary())
    return EXIT_TOO_MANY_BAD_IMAGES if written.unreadable else EXIT_OK
