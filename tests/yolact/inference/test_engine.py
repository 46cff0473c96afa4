"""Every engine gives what the model gives, each within its own tolerance."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.models import tiny_config
from torch import nn

from yolact import Predictor, build_yolact
from yolact.inference.engine import fold_batch_norms, make_engine
from yolact.inference.engine_choice import EngineChoice, capabilities_here

pytestmark = pytest.mark.compute

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra [openvino] is not installed"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def tiny_model(**changes):
    """Random weights that find something everywhere, and batch norms that are no identities."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_yolact(replace(tiny_config(), **changes))
        for parameter in model.head.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def images(model):
    size = model.config.input_size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def expected(model, images):
    with torch.inference_mode():
        return model.infer(images)


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((60, 80), (150, 97))]


def engine(model, precision, name, device=CPU, batch_size=2, network=None):
    return make_engine(model, device, EngineChoice(precision, name, "of a test"), batch_size, network)


def relative_errors(raw, expected):
    assert raw.semantic_logits is None
    pairs = list(zip(raw[:4], expected[:4], strict=True))
    assert all(a.dtype == torch.float32 and a.shape == b.shape and a.is_contiguous() for a, b in pairs)
    return [float((a.cpu() - b).norm() / b.norm()) for a, b in pairs]


def test_float32_eager_is_the_model_to_the_bit(model, images, expected):
    raw = engine(model, "float32", "eager")(images)
    assert all(torch.equal(a, b) for a, b in zip(raw[:4], expected[:4], strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backbone": "resnet50"},
        {"backbone": "resnet50", "deformable": ((0, 1), (4, 3), (6, 3), (3, 3))},
        {"backbone": "darknet53"},
    ],
)
def test_batch_norms_are_folded_away(changes, images):
    model = tiny_model(**changes)
    folded = fold_batch_norms(model)
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        assert max(relative_errors(folded.infer(images[:1]), model.infer(images[:1]))) < 1e-4


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_by_eager(model, images, expected, precision):
    errors = relative_errors(engine(model, precision, "eager")(images), expected)
    assert 0 < max(errors) < 0.05


@needs_openvino
def test_float32_by_openvino(model, images, expected):
    from yolact.inference.openvino_engine import OpenVinoNetwork, convert

    network = convert(model)
    assert OpenVinoNetwork.from_bytes(network.to_bytes()) == network
    run = engine(model, "float32", "openvino", network=network)
    first = run(images)
    assert max(relative_errors(first, expected)) < 1e-5
    kept = [part.clone() for part in first[:4]]
    run(torch.zeros_like(images))
    assert all(torch.equal(a, b) for a, b in zip(first[:4], kept, strict=True)), "results are the caller's to keep"
    again = run(images)
    assert all(torch.equal(a, b) for a, b in zip(again[:4], kept, strict=True))


@needs_openvino
def test_openvino_runs_beside_its_caller(model, images):
    run = engine(model, "float32", "openvino")
    wanted = [run(images), run(torch.zeros_like(images))]
    finish = run.start(images)
    first = finish()
    finish = run.start(torch.zeros_like(images))
    for raw, expected in zip((first, finish()), wanted, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(raw[:4], expected[:4], strict=True))
    run.start(images)  # whose result nobody fetches
    assert torch.equal(run.start(torch.zeros_like(images))()[0], wanted[1][0])


@needs_openvino
def test_images_after_one_another_are_as_if_alone(model, photos):
    predict = Predictor(model, device="cpu", engine="openvino", score_threshold=0.0)
    together = predict([*photos, *photos])
    alone = [predict([photo])[0] for photo in (*photos, *photos)]
    for one, other in zip(together, alone, strict=True):
        assert len(one) > 0
        assert np.array_equal(one.scores, other.scores)
        assert one.masks == other.masks


@needs_openvino
def test_int8(model, photos):
    from yolact.inference.openvino_engine import quantise

    prepared = [Predictor(model, device="cpu").prepare(photo) for photo in photos]
    network = quantise(model, prepared)
    assert len(network.weights) < 0.5 * sum(4 * parameter.numel() for parameter in model.parameters())
    full = Predictor(model, device="cpu", batch_size=2).infer(prepared)
    predict = Predictor(model, device="cpu", batch_size=2, precision="int8", network=network)
    assert (predict.precision, predict.choice.engine) == ("int8", "openvino")
    errors = relative_errors(predict.infer(prepared), full)
    assert 0 < max(errors) < 0.5
    assert all(len(found) for found in predict(photos))
    with pytest.raises(ValueError, match="images to calibrate on"):
        quantise(model, [])


def test_int8_without_a_network_is_refused(model):
    with pytest.raises(ValueError, match="needs `network`" if capabilities_here("cpu").openvino else "not installed"):
        Predictor(model, device="cpu", precision="int8")


def test_auto_says_what_it_took(model):
    predict = Predictor(model, device="cpu", precision="auto", engine="eager")
    fast = capabilities_here("cpu").fast_bfloat16
    assert predict.precision == predict.choice.precision == ("bfloat16" if fast else "float32")
    assert predict.choice.reason


def test_a_network_file_of_another_kind_is_refused():
    from yolact.inference.openvino_engine import OpenVinoNetwork

    with pytest.raises(ValueError, match="not a network"):
        OpenVinoNetwork.from_bytes(b"something else")


@pytest.mark.process  # the compiler is a process
@pytest.mark.slow
@pytest.mark.skipif(not capabilities_here("cpu").compiler, reason="there is no C++ compiler")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_compiled(model, images, expected, precision, tolerance, tmp_path, monkeypatch):
    monkeypatch.setenv("YOLACT_CACHE", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    run = engine(model, precision, "compiled")
    assert max(relative_errors(run(images), expected)) < tolerance
    assert list((tmp_path / "inductor").rglob("*.so"))


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["eager", "compiled"])
def test_on_a_gpu(images, expected, precision, name):
    cuda = torch.device("cuda")
    run = engine(tiny_model().to(cuda), precision, name, cuda)
    first = run(images.to(cuda))
    assert max(relative_errors(first, expected)) < (1e-4 if precision == "float32" else 0.05)
    kept = [part.clone() for part in first[:4]]
    # a CUDA graph writes into the same memory again
    run(torch.zeros_like(images).to(cuda))
    assert all(torch.equal(a, b) for a, b in zip(first[:4], kept, strict=True))
