"""`yolact export-model`: what it writes is the model, for any batch size, and what is not is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from support.models import save_tiny_checkpoint

from jobs.export_model import ExportModelConfig, run
from jobs.export_model.programs import OPSET, check
from jobs.runtime.errors import JobError
from yolact import load_checkpoint
from yolact.network.model import OUTPUT_NAMES, InferenceNetwork

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = [
    pytest.mark.compute,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(save_tiny_checkpoint(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def exported(tmp_path_factory, checkpoint):
    folder = tmp_path_factory.mktemp("exported")
    assert run(ExportModelConfig(str(folder), weights=checkpoint)) == 0
    return folder


@pytest.mark.parametrize("batch", [1, 4])
def test_the_files_give_what_the_model_gives(exported, checkpoint, batch):
    images = np.random.default_rng(batch).normal(size=(batch, 3, 96, 96)).astype(np.float32)
    with torch.no_grad():
        expected = InferenceNetwork(load_checkpoint(checkpoint).eval())(torch.from_numpy(images))
        program = torch.export.load(exported / "model.pt2").module()(torch.from_numpy(images))
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    onnx = session.run(list(OUTPUT_NAMES), {"images": images})
    for wanted, by_torch, by_onnx in zip(expected, program, onnx, strict=True):
        np.testing.assert_allclose(by_torch.numpy(), wanted.numpy(), atol=1e-5)
        np.testing.assert_allclose(by_onnx, wanted.numpy(), atol=1e-5)


def test_what_is_written_beside_them(exported, checkpoint):
    described = json.loads((exported / "model.json").read_text())
    model = load_checkpoint(checkpoint)
    np.testing.assert_array_equal(np.load(exported / "anchors.npy"), model.anchors.numpy())
    assert described["class_names"] == ["round", "square", "other"]
    assert described["input"]["images"] == ["batch", 3, 96, 96]
    assert described["outputs"]["class_logits"] == ["batch", len(model.anchors), 4]
    assert described["onnx_opset"] == OPSET
    assert described["largest_relative_difference"].keys() == {"model.onnx", "model.pt2"}
    import onnx

    opsets = onnx.load(exported / "model.onnx", load_external_data=False).opset_import
    assert {entry.version for entry in opsets if entry.domain == ""} == {OPSET}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda found: [found[0] * 1.01, *found[1:]], "in box_deltas by"),
        (lambda found: [*found[:3], found[3] * np.nan], "in prototypes by nan"),
        (lambda found: [found[0][:, 1:], *found[1:]], "box_deltas of shape"),
    ],
)
def test_a_file_that_differs_is_refused(checkpoint, spoil, message):
    model = load_checkpoint(checkpoint).eval()

    def spoilt(images):
        with torch.no_grad():
            return spoil([output.numpy() for output in InferenceNetwork(model)(torch.from_numpy(images))])

    with pytest.raises(JobError, match=message):
        check(model, spoilt, "model.onnx")
