"""One run of the label job with the stand-in model, in the process that `jobs.benchmarks.scale` watches.

    python -m jobs.benchmarks.scale_run LAKE OUTPUT WEIGHTS

On stderr JSON lines: the job's own log with its progress, and once a second the bytes held in Ray's object store.
"""

from __future__ import annotations

import logging
import sys
import threading

STORE_SECONDS = 1.0
PROGRESS_SECONDS = 0.2

log = logging.getLogger("jobs.benchmarks.scale_run")


def report_store(stop: threading.Event) -> None:
    """Log what Ray's object store holds, from when Ray is there until `stop`."""
    import ray

    while not stop.wait(STORE_SECONDS):
        if ray.is_initialized():
            capacity = ray.cluster_resources().get("object_store_memory", 0.0)
            free = ray.available_resources().get("object_store_memory", capacity)
            log.info("object store", extra={"fields": {"store_bytes": int(capacity - free)}})


def main() -> int:
    """Label LAKE; returns the job's exit code."""
    from jobs.benchmarks.scale_model import StandInPredictor
    from jobs.label import LabelConfig
    from jobs.labelling import progress
    from jobs.labelling.run import label_lake

    lake, output, weights = sys.argv[1:]
    progress.LINE_SECONDS = PROGRESS_SECONDS
    # float32 by name: no engine is made ready for a model that does not run
    config = LabelConfig((lake,), output, weights=weights, precision="float32", address="local", log_format="json")
    stop = threading.Event()
    reporter = threading.Thread(target=report_store, args=(stop,), daemon=True)
    reporter.start()
    try:
        return label_lake(config, make_predictor=StandInPredictor)
    finally:
        stop.set()
        # before the interpreter takes Ray's modules apart
        reporter.join()


if __name__ == "__main__":
    sys.exit(main())
