"""What decides the rows of a run, and what does not: every option of `yolact label` is one or the other."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from jobs.label.identity import IN_IDENTITY, NOT_IN_IDENTITY, make_identity
from jobs.label.options import LabelConfig
from jobs.runtime.errors import UsageError
from jobs.runtime.model_source import ModelSource
from jobs.table.output import Output
from jobs.table.policy import ClassRule, Policy
from jobs.table.record import RunRecord, check_identity, identity_hash
from yolact.config import CONFIGS

FIELDS = {field.name for field in dataclasses.fields(LabelConfig)}
MODEL = ModelSource(CONFIGS["nuclei"], "weights.safetensors", "a" * 64)
BASE = LabelConfig(("lake",), "out")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "label.md"
#: another value of each option, where its type does not give one
OTHER = {
    "inputs": ("another",),
    "nms": "fast",
    "precision": "float32",
    "engine": "eager",
    "device": "cpu",
    "log_format": "json",
    "score_threshold": 0.5,
    "max_error_rate": 0.5,
    "num_actors": "2",
    "relabel_changed": True,
    "any_name": True,
    "tile_overlap": 0.3,
    "tile_whole_image": False,
}
#: options that mean something only with others
WITH_TILES = dataclasses.replace(BASE, tile=768)
NUMBERS = {
    "tile",
    "tiled_max_detections",
    "max_detections",
    "limit",
    "max_pixels",
    "max_bytes",
    "batch_size",
    "images_per_unit",
    "images_per_part",
}


def test_every_option_is_classified_once():
    assert IN_IDENTITY.keys() | NOT_IN_IDENTITY.keys() == FIELDS, "say in jobs/label/identity.py which it is"
    assert IN_IDENTITY.keys() & NOT_IN_IDENTITY.keys() == set()


@pytest.mark.parametrize("name", sorted(FIELDS - {"config", "weights", "policy"}))
def test_an_option_changes_the_identity_if_it_should(name):
    value = OTHER.get(name, 7 if name in NUMBERS else "another")
    base = WITH_TILES if name.startswith("tile") else BASE
    changed = make_identity(dataclasses.replace(base, **{name: value}), MODEL)
    same = identity_hash(changed) == identity_hash(make_identity(base, MODEL))
    assert same is (name not in IN_IDENTITY)
    if not same:
        assert changed[IN_IDENTITY[name]] == value


@pytest.mark.parametrize("change", [{"config": CONFIGS["yolact_base"]}, {"sha256": "b" * 64}])
def test_another_model_is_another_identity(change):
    assert make_identity(BASE, dataclasses.replace(MODEL, **change)) != make_identity(BASE, MODEL)


def policy(*rules: ClassRule) -> Policy:
    return Policy(("nucleus", "debris"), rules)


def test_a_policy_is_in_the_identity_by_what_it_says():
    """Not by the name of its file: the file may move, and what it says may change under the same name."""
    config = dataclasses.replace(BASE, policy="policy.yaml")
    there = make_identity(config, MODEL, policy(ClassRule("nucleus", "nucleus", 0.3, 0)))
    assert there["policy"] == [{"source": "nucleus", "name": "nucleus", "score_threshold": 0.3, "min_area": 0}]
    assert there == json.loads(json.dumps(there))
    moved = dataclasses.replace(config, policy="s3://bucket/other.yaml")
    assert make_identity(moved, MODEL, policy(ClassRule("nucleus", "nucleus", 0.3, 0))) == there
    assert make_identity(config, MODEL, policy(ClassRule("nucleus", "cell", 0.3, 0))) != there
    assert "policy" not in make_identity(BASE, MODEL)


def test_a_resume_with_another_column_is_refused():
    there = make_identity(dataclasses.replace(BASE, image_column="photo"), MODEL)
    asked = make_identity(dataclasses.replace(BASE, image_column="drawing"), MODEL)
    with pytest.raises(UsageError, match=r"image_column photo; asked: .*image_column drawing"):
        check_identity(Output("out"), RunRecord(identity=there), asked)


def test_every_option_stands_in_the_docs_with_its_side():
    rows = dict(re.findall(r"^\| `(?:--)?([a-zA-Z-]+)`[^|]*\| (yes|no)[,:]", PAGE.read_text(), re.M))
    sides = {name.lower().replace("-", "_"): side for name, side in rows.items()}
    sides["inputs"] = sides.pop("input")
    assert sides == {name: "yes" if name in IN_IDENTITY else "no" for name in IN_IDENTITY | NOT_IN_IDENTITY}
