"""Write a model for other runtimes: ONNX and a torch.export program, checked against the model itself.

    yolact export-model --output exported --config yolact_resnet50

Writes model.onnx, model.pt2, anchors.npy and model.json, which says what goes in and what comes out. Both programs take
any batch size and give the network's raw predictions. What follows (decoding, NMS, masks) is in
yolact/inference/postprocess.py. Takes a minute or two.
"""

from __future__ import annotations

from jobs.export_model.options import ExportModelConfig

__all__ = ["ExportModelConfig", "run"]


def run(config: ExportModelConfig) -> int:
    """Export, check, write, and return the exit code. Raises `UsageError`, and `JobError` where a check fails."""
    from jobs.export_model.command import export_model
    from jobs.runtime.errors import EXIT_OK

    for file_name, difference in export_model(config).items():
        print(f"{file_name}  differs from the model by {difference:.1e} of its largest value, at most")
    print(f"written to {config.output}")
    return EXIT_OK
