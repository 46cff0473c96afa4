"""Reads annotation files as a command does, one a line of base64 on stdin; says "ok", "refused" or the traceback.

A process of its own: what must be found is a file that ends it by a signal, or makes it wait or grow without end.
"""

from __future__ import annotations

import base64
import resource
import sys
import traceback

import numpy as np
from pycocotools import mask as rle_tools

from yolact.coco.annotations import AnnotatedImages, coco_json, ground_truth_arrays
from yolact.coco.checks import find_problems, without_problems
from yolact.coco.evaluation import DetectedInstance, evaluate_instances
from yolact.coco.file_names import FileNames
from yolact.coco.overview import count_classes, fit_boxes
from yolact.coco.reading import parse_coco

#: bytes of address space above what the imports take
MEMORY = 3 << 30
#: decoding masks takes images of the size that images have; a training run has decoded the image before
DECODED_PIXELS = 1_000_000


def use(data: bytes) -> str:
    """Everything that train, evaluate and report do with a file of annotations; "refused", or "ok"."""
    try:
        read = parse_coco(data, "fuzz.json")
    except ValueError as error:
        message = str(error)
        return "refused" if "\n" not in message and len(message) < 400 else f"not one short line: {message[:1000]}"
    names = FileNames(image.file_name for image in read.images)
    problems = find_problems(read, [name for image in read.images if (name := names.find(image.file_name)) is not None])
    for problem in problems:
        str(problem).encode()
    left = without_problems(read, problems)
    assert find_problems(left) == []
    count_classes(left)
    fit_boxes(left)
    for image in left.images:
        if image.height * image.width * max(1, len(image.annotations)) <= DECODED_PIXELS:
            arrays = ground_truth_arrays(image, left.label_of_category)
            assert np.isfinite(arrays["boxes"]).all()
            assert arrays["masks"].max(initial=0) <= 1
    evaluate(left)
    return "ok"


def evaluate(data: AnnotatedImages) -> None:
    """Score the ground truth as its own detections; every number is between 0 and 1, or −1 where nothing is there."""
    content = coco_json(data)
    detections = [
        DetectedInstance(entry["image_id"], entry["category_id"], 0.5, None, entry["bbox"], entry["segmentation"])
        for entry in content["annotations"]
        if rle_tools.area(entry["segmentation"])
    ]
    scores = evaluate_instances(content, detections)
    for result in scores.values():
        assert all(value == -1 or 0 <= value <= 1 + 1e-9 for value in result.headline().values()), result


def main() -> None:
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    for line in sys.stdin:
        try:
            answer = use(base64.b64decode(line))
        except Exception:
            answer = traceback.format_exc()
        print(base64.b64encode(answer.encode()).decode(), flush=True)


main()
