"""A tiny model memorises 8 images: matching, losses, decoding, masks and AP all agree with each other.

The work is bounded by a number of steps. No time-out holds: on a busy machine the same steps take longer.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle_tools

from yolact.coco.annotations import coco_json
from yolact.coco.evaluation import DetectedInstance, evaluate_instances
from yolact.coco.reading import parse_coco
from yolact.config import AnchorConfig, YolactConfig
from yolact.inference.predictor import Predictor
from yolact.network.model import build_yolact
from yolact.training.augmentation import build_augmentation
from yolact.training.dataset import TrainingDataset, collate
from yolact.training.losses import YolactWithLoss
from yolact.training.optimisation import build_optimizer, learning_rate_at, set_learning_rate
from yolact.training.packed import PackedImages
from yolact.training.targets import TargetMaker

pytestmark = pytest.mark.compute

STEPS = 120
SIZE = 64

CONFIG = YolactConfig(
    name="memory",
    input_size=2 * SIZE,  # so that prototypes have the resolution of the images
    backbone="mobilenetv2",
    class_names=("disc", "block"),
    anchors=AnchorConfig(((24.0,), (48.0,))),
    head_levels=(3, 4),
    fpn_channels=48,
    head_channels=48,
    protonet_level=2,
    protonet_channels=32,
    protonet_depth=(1, 1),
    num_prototypes=16,
)


def draw_scene(rng):
    """Discs and blocks that touch but do not hide each other: pixels (S, S, 3) uint8, masks, labels."""
    y, x = np.mgrid[:SIZE, :SIZE]
    pixels = rng.integers(0, 40, (SIZE, SIZE, 3)).astype(np.uint8)
    taken, masks, labels = np.zeros((SIZE, SIZE), bool), [], []
    for cy, cx in [(16, 16), (16, 46), (47, 17), (45, 47)]:
        cy, cx = cy + rng.integers(-4, 5), cx + rng.integers(-4, 5)
        radius, label = rng.integers(8, 14), int(rng.integers(2))
        inside = np.hypot(y - cy, x - cx) < radius if label == 0 else np.maximum(abs(y - cy), abs(x - cx)) < radius
        mask = inside & ~taken
        taken |= mask
        pixels[mask] = rng.integers(90, 250, 3)
        masks.append(mask)
        labels.append(label)
    return pixels, masks, labels


def draw_data():
    rng = np.random.default_rng(0)
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": n} for i, n in enumerate(CONFIG.class_names)],
    }
    files, pixels_of_images = {}, []
    for image_id in range(8):
        pixels, masks, labels = draw_scene(rng)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="PNG")
        name = f"{image_id}.png"
        files[name] = stream.getvalue()
        pixels_of_images.append(pixels)
        content["images"].append({"id": image_id, "file_name": name, "height": SIZE, "width": SIZE})
        for mask, label in zip(masks, labels, strict=True):
            rle = rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": label,
                    "bbox": rle_tools.toBbox(rle).tolist(),
                    "iscrowd": 0,
                    "segmentation": {"size": [SIZE, SIZE], "counts": rle["counts"].decode()},
                }
            )
    return parse_coco(content), files, pixels_of_images


@pytest.fixture
def one_thread():
    """Threads of one process wait for each other at every layer, which takes long on a machine with other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.timeout(0)
@pytest.mark.usefixtures("one_thread")
def test_eight_images_are_memorised():
    data, files, pixels_of_images = draw_data()
    augment = build_augmentation("none", CONFIG.input_size, CONFIG.prototype_size)
    dataset = TrainingDataset(PackedImages(data), files.__getitem__, augment, TargetMaker.of(CONFIG))
    batch = collate([dataset[(0, slot)] for slot in range(len(dataset))])
    mean, std = torch.tensor(CONFIG.mean).view(3, 1, 1), torch.tensor(CONFIG.std).view(3, 1, 1)
    images = (batch.images - mean) / std
    torch.manual_seed(0)
    model = build_yolact(CONFIG).train()
    trainable = YolactWithLoss(model)
    optimizer = build_optimizer(model, "adamw", 3e-3, 1e-4)
    for step in range(STEPS):
        rate = learning_rate_at(step, peak=3e-3, max_steps=STEPS, warmup_steps=10, schedule="cosine")
        set_learning_rate(optimizer, rate)
        losses = trainable(images, batch.targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    found = []
    for image, detections in zip(data.images, Predictor(model, score_threshold=0.05)(pixels_of_images), strict=True):
        for i, (x1, y1, x2, y2) in enumerate(detections.boxes.tolist()):
            score, label = float(detections.scores[i]), int(detections.labels[i])
            box = (x1, y1, x2 - x1, y2 - y1)
            found.append(DetectedInstance(image.image_id, label, score, None, box, detections.masks[i]))
    scores = evaluate_instances(coco_json(data), found)
    assert scores["mask"].ap >= 0.9
    assert scores["box"].ap >= 0.8
