"""Average precision, curves and thresholds of a label table against COCO ground truth.

    yolact evaluate s3://bucket/labelled --ground-truth s3://bucket/instances_val.json --max-detections 100 500

Prints COCO's twelve numbers for masks and boxes, AP at each IoU, and for masks precision and recall at the score of the
best F1, confusions and calibration. `--write-policy` makes a policy file of the best thresholds. What could not be
compared is counted, and images of the ground truth that the table lacks count as images without detections. Runs in
this process: seconds to minutes.
"""

from __future__ import annotations

from jobs.evaluate.options import EvaluateConfig, check_options
from jobs.runtime.errors import EXIT_OK


def run(config: EvaluateConfig) -> int:
    """Compare and print; returns the exit code."""
    check_options(config)
    from jobs.evaluate.command import evaluate

    # printing comes last: whoever reads the lines may stop reading before the end
    for line in evaluate(config):
        print(line)
    return EXIT_OK
