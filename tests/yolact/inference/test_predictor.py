"""The one way from pixels to detections."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from support.models import tiny_config

from yolact import Predictor, build_yolact
from yolact.config import NmsConfig
from yolact.geometry.boxes import box_iou, decode_boxes
from yolact.geometry.outlines import THRESHOLD
from yolact.images.network_input import network_input
from yolact.images.prepare import prepare_image
from yolact.inference import predictor as predictor_module

pytestmark = pytest.mark.compute

TINY = tiny_config(class_names=("nut", "bolt", "washer"))


def random_model(config=TINY, seed=0):
    """Random weights that find something everywhere: scores of every class spread over 0..1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_yolact(config)
        for parameter in model.head.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    sizes = [(60, 80), (150, 97), (300, 500), (1, 1), (96, 96)]
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]


def same(a, b):
    """Equal to the bit."""
    assert a.masks == b.masks
    for name in ("boxes", "scores", "labels", "areas", "mask_scores"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.height, a.width) == (b.height, b.width)


def test_detections_are_well_formed(model, images):
    for image, found in zip(images, Predictor(model, device="cpu")(images), strict=True):
        count = len(found)
        assert 0 < count <= 100
        assert (found.height, found.width) == image.shape[:2]
        assert found.boxes.shape == (count, 4)
        assert found.boxes.dtype == found.scores.dtype == np.float32
        assert found.labels.dtype == found.areas.dtype == np.int64
        assert found.mask_scores is None
        assert (np.diff(found.scores) <= 0).all()
        assert (found.scores > 0.15).all()
        assert set(found.labels) <= {0, 1, 2}
        x1, y1, x2, y2 = found.boxes.T
        assert (x1 >= 0).all()
        assert (y1 >= 0).all()
        assert (x1 <= x2).all()
        assert (y1 <= y2).all()
        assert (x2 <= found.width).all()
        assert (y2 <= found.height).all()
        for index, rle in enumerate(found.masks):
            assert rle["size"] == [found.height, found.width]
            mask = found.mask(index)
            assert mask.shape == image.shape[:2]
            assert mask.dtype == bool
            assert mask.sum() == found.areas[index] == coco_mask.area(rle)


def plain_detections(model, image, config, max_detections, threshold):
    """The release's steps in a straight line, every class and anchor, full-size masks: (score, label, box, mask)."""
    height, width = image.shape[:2]
    with torch.inference_mode():
        raw = model(network_input(prepare_image(image, config.input_size), config)[None])
    scores = raw.class_logits[0].softmax(-1)[:, 1:]
    keep = scores.max(1).values > config.nms.score_floor
    boxes, scores = decode_boxes(raw.box_deltas[0], model.anchors)[keep], scores[keep]
    coefficients = raw.mask_coefficients[0][keep]
    found = []
    for label in range(config.num_classes):
        order = scores[:, label].argsort(descending=True, stable=True)[: config.nms.top_k]
        iou = box_iou(boxes[order], boxes[order]).triu(1).amax(0)
        found += [(float(scores[i, label]), label, int(i)) for i in order[iou <= config.nms.iou_threshold]]
    found = [d for d in sorted(found, key=lambda d: -d[0])[:max_detections] if d[0] > threshold]
    rows = torch.tensor([row for _, _, row in found])
    soft = torch.sigmoid(coefficients[rows] @ raw.prototypes[0].flatten(1)).view(-1, *raw.prototypes.shape[2:])
    if config.crop_masks:
        size = torch.tensor(soft.shape[:0:-1])
        corners = boxes[rows].view(-1, 2, 2) * size
        low, high = (corners.amin(1) - 1).clamp(min=0), torch.minimum(corners.amax(1) + 1, size)
        x, y = torch.arange(soft.shape[2])[None, None], torch.arange(soft.shape[1])[None, :, None]
        low, high = low[:, :, None, None], high[:, :, None, None]
        soft = soft * ((x >= low[:, 0]) & (x < high[:, 0]) & (y >= low[:, 1]) & (y < high[:, 1]))
    masks = F.interpolate(soft.double()[None], (height, width), mode="bilinear", align_corners=False)[0] > THRESHOLD
    return [(score, label, boxes[row], mask) for (score, label, row), mask in zip(found, masks, strict=True)]


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize(("max_detections", "threshold"), [(100, 0.0), (7, 0.2), (300, 0.3)])
def test_shortcuts_change_nothing(images, crop, max_detections, threshold):
    config = replace(TINY, crop_masks=crop, nms=NmsConfig(top_k=30))
    model = random_model(config)
    predict = Predictor(model, device="cpu", score_threshold=threshold, max_detections=max_detections)
    for image in images[:3]:
        expected = plain_detections(model, image, config, max_detections, threshold)
        found = predict([image])[0]
        assert found.scores.tolist() == [score for score, _, _, _ in expected]
        assert found.labels.tolist() == [label for _, label, _, _ in expected]
        assert expected
        for index, (_, _, _, mask) in enumerate(expected):
            np.testing.assert_array_equal(found.mask(index), mask.numpy())


def test_an_image_does_not_depend_on_its_neighbours(model, images):
    predict = Predictor(model, device="cpu", batch_size=3)
    together = predict(images)
    for image, found in zip(images, together, strict=True):
        same(predict([image])[0], found)
    for found, expected in zip(predict(images[::-1]), together[::-1], strict=True):
        same(found, expected)


@pytest.mark.parametrize(
    ("engine", "device"),
    [
        ("eager", "cpu"),
        ("openvino", "cpu"),
        pytest.param("compiled", "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
    ],
)
def test_threads_share_a_predictor(images, engine, device):
    predict = Predictor(random_model(), device=device, engine=engine, batch_size=2)
    calls = [images[start:] + images[:start] for start in range(len(images))] * 3
    alone = [predict(call) for call in calls]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(predict, calls))
    for a, b in zip(alone, together, strict=True):
        for found, expected in zip(b, a, strict=True):
            same(found, expected)


def test_a_call_that_fails_gives_the_network_back(model, images):
    predict = Predictor(model, device="cpu", engine="eager")
    expected = predict(images[:1])[0]
    first, second = (predict.prepare(image) for image in images[:2])
    with pytest.raises(AttributeError):
        predict.predict_prepared([first, second, None])
    same(predict(images[:1])[0], expected)


def test_masks_are_scored_in_full_float32(images, monkeypatch):
    """The mask scoring net runs after the network, and is a network too."""
    model = random_model(replace(TINY, mask_rescoring=True, input_size=128, protonet_level=2))
    precisions = []
    model.mask_scoring.register_forward_hook(
        lambda *_: precisions.append(torch.backends.cudnn.conv.fp32_precision), always_call=True
    )
    Predictor(model, device="cpu")(images[:1])
    assert precisions == ["ieee"]


def test_read_only_arrays_are_taken_without_a_warning(model, images):
    """PIL and Arrow give such arrays; pytest makes errors of warnings."""
    predict = Predictor(model, device="cpu")
    for image in images:
        read_only = image.copy()
        read_only.flags.writeable = False
        same(predict([read_only])[0], predict([image])[0])


@pytest.mark.parametrize("engine", ["eager", "openvino"])
def test_a_predictor_pickles(model, images, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    predict = Predictor(
        model, device="cpu", engine=engine, score_threshold=0.2, max_detections=7, nms="standard", batch_size=2
    )
    copy = pickle.loads(pickle.dumps(predict))
    assert (copy.choice.precision, copy.choice.engine) == (predict.choice.precision, engine)
    for found, expected in zip(copy(images), predict(images), strict=True):
        same(found, expected)


def test_infer_waits_for_the_network(model, images):
    """One call has the network at a time, whichever half it came in by."""
    predict = Predictor(model, device="cpu")
    prepared = [predict.prepare(images[0])]
    running, most = 0, 0
    inside = threading.Lock()
    real = predict._engine.__class__.__call__

    class Counting:
        def __call__(self, inputs):
            nonlocal running, most
            with inside:
                running += 1
                most = max(most, running)
            try:
                return real(engine, inputs)
            finally:
                with inside:
                    running -= 1

        def start(self, inputs):
            return lambda: self(inputs)

    engine, predict._engine = predict._engine, Counting()
    with ThreadPoolExecutor(4) as pool:
        halves = [pool.submit(predict.infer, prepared) for _ in range(10)]
        wholes = [pool.submit(predict.predict_prepared, prepared) for _ in range(10)]
        for call in halves + wholes:
            call.result()
    assert most == 1
    with pytest.raises(ValueError, match="at most 1 images"):
        predict.infer(prepared * 2)


def test_the_batch_size_changes_float_noise_only(model, images):
    one, three = (Predictor(model, device="cpu", batch_size=size, score_threshold=0.2)(images) for size in (1, 3))
    for a, b in zip(one, three, strict=True):
        assert abs(len(a) - len(b)) <= 1
        common = min(len(a), len(b))
        np.testing.assert_allclose(a.scores[:common], b.scores[:common], atol=1e-5)


def test_prepared_images_give_the_same(model, images):
    predict = Predictor(model, device="cpu")
    prepared = [predict.prepare(image) for image in images]
    assert prepared[2].pixels.shape == (192, 192, 3)
    for a, b in zip(predict(images), predict.predict_prepared(prepared), strict=True):
        same(a, b)


@pytest.mark.parametrize("kind", ["fast", "fast-cross-class", "standard"])
def test_nothing_found(model, images, kind):
    found = Predictor(model, device="cpu", score_threshold=1.0, nms=kind)(images[:1])[0]
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.masks == []
    assert found.scores.shape == found.labels.shape == found.areas.shape == (0,)


def test_nothing_found_with_mask_rescoring(images):
    model = random_model(replace(TINY, mask_rescoring=True, input_size=128, protonet_level=2))
    assert Predictor(model, device="cpu", score_threshold=1.0)(images[:1])[0].mask_scores.shape == (0,)
    found = Predictor(model, device="cpu")(images[:1])[0]
    assert found.mask_scores.shape == found.scores.shape
    assert (np.diff(found.scores) <= 0).all()


def test_an_empty_list(model):
    assert Predictor(model, device="cpu")([]) == []


def test_limits(model, images):
    def count(**settings):
        return len(Predictor(model, device="cpu", score_threshold=0, **settings)(images[:1])[0])

    assert count() == count(max_detections=100) == 100
    assert count(max_detections=5) == count(max_detections=5, nms="standard") == 5
    assert count(max_detections=5, nms="fast-cross-class") == 5
    assert count(max_detections=150) == 150


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_is_near(model, images, precision):
    image = images[:1]
    full = Predictor(model, device="cpu", score_threshold=0.0)(image)[0]
    low = Predictor(model, device="cpu", score_threshold=0.0, precision=precision, engine="eager")(image)[0]
    assert low.boxes.dtype == low.scores.dtype == np.float32
    np.testing.assert_allclose(low.scores, full.scores, atol=0.05)
    assert not np.array_equal(low.scores, full.scores)


def test_the_model_is_left_in_evaluation_mode_and_gradients_on(images):
    model = random_model().train()
    Predictor(model, device="cpu")(images[:1])
    assert not model.training
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "int4"}, "precision 'int4' is not one of auto, float32, bfloat16, float16, int8"),
        ({"nms": "soft"}, "nms 'soft' is not one of fast, fast-cross-class, standard"),
        ({"score_threshold": 1.5}, "score_threshold"),
        ({"max_detections": 0}, "max_detections must be at least 1"),
        ({"batch_size": -1}, "batch_size must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(model, settings, message):
    with pytest.raises(ValueError, match=message):
        Predictor(model, device="cpu", **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_told(model):
    with pytest.raises(ValueError, match="no GPU here"):
        Predictor(model, device="cuda")
    assert Predictor(model).device.type == "cpu"


def test_an_image_of_another_kind_is_refused(model):
    with pytest.raises(ValueError, match="uint8, not float64"):
        Predictor(model, device="cpu")([np.zeros((4, 4, 3))])


@pytest.mark.parametrize(("gib", "batch_size"), [(8, 16), (15.8, 64), (80, 64)])
def test_the_usual_batch_size_of_a_gpu_goes_by_its_memory(monkeypatch, gib, batch_size):
    card = SimpleNamespace(total_memory=int(gib * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert predictor_module._usual_batch_size(torch.device("cuda")) == batch_size
    assert predictor_module._usual_batch_size(torch.device("cpu")) == 1
