"""Label a lake of images: every image once, as a row of instance masks in Parquet.

    yolact label s3://lake/shards/{000..099}.tar --output s3://lake/labels --config yolact_base

Run the same command again after any interruption and it goes on; on a lake that has grown it labels what is new.
"""

from __future__ import annotations

from jobs.label.options import LabelConfig


def run(config: LabelConfig) -> int:
    """Label the lake, and print how the run ended; returns the exit code (see `jobs.runtime.errors`).

    Raises `UsageError` and `JobError`.
    """
    # imported here so that --help and a finished run need neither torch nor Ray
    from jobs.label.command import label_lake

    end = label_lake(config)
    end.show()
    return end.exit_code
