"""The training job: data at URIs, the loop of a worker, checkpoints, validation, what a run tells."""
