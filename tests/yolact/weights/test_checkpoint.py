"""Own checkpoints, and how a config finds its weights."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support.models import tiny_config

import yolact.weights.files
from yolact import build_yolact, load_checkpoint, load_weights, save_checkpoint
from yolact.config import CONFIGS
from yolact.weights.checkpoint import load_model
from yolact.weights.files import read_bytes, resolve_weights, write_bytes

TINY = tiny_config(
    input_size=64, class_names=("nut", "bolt"), fpn_channels=8, head_channels=8, protonet_channels=8, num_prototypes=4
)


@pytest.fixture(scope="module")
def model():
    model = build_yolact(TINY)
    model.backbone.features[0][1].running_mean.uniform_(-1, 1)
    return model


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(model, path, provenance={"data": "made up", "steps": 3})
    return path


def assert_same(model, other, **tolerance):
    own, others = model.state_dict(), other.state_dict()
    assert own.keys() == others.keys()
    for name, tensor in own.items():
        assert others[name].dtype == tensor.dtype
        torch.testing.assert_close(others[name], tensor, **tolerance or {"rtol": 0, "atol": 0})


def test_round_trip(model, saved):
    other = load_checkpoint(saved)
    assert other.config == TINY
    assert not other.training
    assert_same(model, other)
    assert torch.equal(other.anchors, model.anchors)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(other(images).class_logits, model.eval()(images).class_logits)


@pytest.mark.compute
def test_half_precision_on_disk_is_float32_in_memory(model, tmp_path, saved):
    save_checkpoint(model, tmp_path / "half.safetensors", dtype=torch.float16)
    other = load_checkpoint(tmp_path / "half.safetensors")
    assert_same(model, other, rtol=1e-3, atol=1e-6)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * saved.stat().st_size


def test_values_that_half_precision_cannot_hold_are_refused(tmp_path):
    model = build_yolact(TINY)
    model.backbone.features[0][1].running_var.fill_(1e6)
    with pytest.raises(ValueError, match=r"running_var has values that torch.float16 cannot hold"):
        save_checkpoint(model, tmp_path / "half.safetensors", dtype=torch.float16)


def test_metadata_are_plain_safetensors(saved):
    with safe_open(saved, "pt") as file:
        assert set(file.metadata()) == {"format", "config", "class_names", "provenance"}
        assert file.metadata()["class_names"] == '["nut", "bolt"]'


def test_any_uri(model):
    save_checkpoint(model, "memory://models/tiny.safetensors")
    assert_same(model, load_checkpoint("memory://models/tiny.safetensors"))


def test_load_weights_says_which_file_it_was(model, saved):
    other = build_yolact(TINY)
    loaded = load_weights(other, saved)
    assert_same(model, other)
    assert loaded.uri == str(saved)
    assert loaded.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert loaded.kind == "checkpoint"
    assert loaded.provenance == {"data": "made up", "steps": 3}


def test_load_weights_keeps_parameters_that_an_optimiser_holds(saved):
    other = build_yolact(TINY)
    held = list(other.parameters())
    load_weights(other, saved)
    assert all(a is b for a, b in zip(held, other.parameters(), strict=True))


@pytest.mark.compute
def test_load_model_by_weights_by_config_and_by_both(model, saved, tmp_path, monkeypatch):
    for arguments in ((saved,), (saved, TINY)):
        other, loaded = load_model(*arguments)
        assert_same(model, other)
        assert loaded.uri == str(saved)
    with pytest.raises(ValueError, match="give weights, a config, or both"):
        load_model()
    torch.save({"a": torch.ones(1)}, tmp_path / "official.pth")
    with pytest.raises(ValueError, match="does not carry its config"):
        load_model(tmp_path / "official.pth")


@pytest.mark.compute
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ("nut", "screw")}, r"trained for 2 classes \(nut, bolt\), but .* 2 classes \(nut, screw\)"),
        ({"class_names": ("nut",)}, "has 1 classes"),
        ({"num_prototypes": 5}, "4 prototypes.*5 prototypes"),
        ({"fpn_channels": 16}, "does not fit config 'tiny'.* has shape"),
    ],
)
def test_a_checkpoint_of_another_config_is_refused(saved, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(build_yolact(replace(TINY, **change)), saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.999])
def test_a_truncated_checkpoint(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="truncated") as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


def test_safetensors_of_others(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a checkpoint of this project"):
        load_checkpoint(tmp_path / "other.safetensors")


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    write_bytes(tmp_path / "new" / "file", b"old")
    with pytest.raises(TypeError):
        write_bytes(tmp_path / "new" / "file", "no bytes")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]
    assert read_bytes(tmp_path / "new" / "file") == b"old"


def test_published_weights_are_taken_from_the_local_folder_first(tmp_path, monkeypatch):
    monkeypatch.setenv("YOLACT_WEIGHTS", str(tmp_path))
    (tmp_path / "yolact_base_54_800000.pth").write_bytes(b"weights")
    assert resolve_weights(CONFIGS["yolact_base"]) == tmp_path / "yolact_base_54_800000.pth"


def test_published_weights_are_fetched_once(tmp_path, monkeypatch):
    monkeypatch.setenv("YOLACT_WEIGHTS", str(tmp_path / "new"))
    asked = []

    def fetch(uri):
        asked.append(uri)
        return b"weights"

    monkeypatch.setattr(yolact.weights.files, "read_bytes", fetch)
    for _ in range(2):
        assert resolve_weights(CONFIGS["yolact_im700"]).read_bytes() == b"weights"
    assert asked == ["hf://dbolya/yolact-im700/yolact_im700_54_800000.pth"]


def test_without_a_network_the_file_and_its_place_are_named(tmp_path, monkeypatch):
    def fail(uri):
        raise ValueError("no network")

    monkeypatch.setenv("YOLACT_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(yolact.weights.files, "read_bytes", fail)
    with pytest.raises(
        ValueError, match=r"get yolact_base_54_800000\.pth from https://huggingface\.co/dbolya"
    ) as caught:
        resolve_weights(CONFIGS["yolact_base"])
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_configs_without_a_published_file_say_so():
    with pytest.raises(ValueError, match="'yolact_im400' has no published weights"):
        resolve_weights(CONFIGS["yolact_im400"])


def test_shipped_weights_are_found_by_name(saved, tmp_path, monkeypatch):
    module = tmp_path / "package" / "weights" / "files.py"
    models = tmp_path / "package" / "models"
    models.mkdir(parents=True)
    shutil.copy(saved, models / "tiny.safetensors")
    monkeypatch.setattr(yolact.weights.files, "__file__", str(module))
    assert load_model(config=TINY)[1].uri == str(models / "tiny.safetensors")
