"""A training step: the same with any number of workers, and harmless where something is not finite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import gloo_steps
from support.gpu_counter import GpuCounter

from jobs.train.state import read_state
from jobs.train.step import TrainingStep
from yolact.training.dataset import EpochSampler, collate

#: several processes that import PyTorch take long on a busy machine
pytestmark = pytest.mark.timeout(1800)

SCRIPT = Path(gloo_steps.__file__)
ROOT = SCRIPT.parents[2]


def steps_with(folder: Path, num_workers: int) -> list[list[dict]]:
    """Per worker, what each step of so many real gloo processes did."""
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(SCRIPT), str(folder), str(worker), str(num_workers)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for worker in range(num_workers)
    ]
    for process in processes:
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
    return [torch.load(folder / f"steps-{num_workers}-{worker}.pt") for worker in range(num_workers)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return steps_with(tmp_path_factory.mktemp("alone"), 1)[0]


@pytest.mark.parametrize("num_workers", [3, 5])
def test_uneven_shares_make_the_losses_and_gradients_of_one_worker(tmp_path, alone, num_workers):
    workers = steps_with(tmp_path, num_workers)
    assert len({len(worker[0]["images"]) for worker in workers}) == 2  # 8 images: shares of 2 and 3, or of 1 and 2
    for number, wanted in enumerate(alone):
        shares = [worker[number] for worker in workers]
        assert [image for share in shares for image in share["images"]] == wanted["images"]
        for share in shares:
            assert share["skipped"] == shares[0]["skipped"]
            assert torch.equal(share["weights"], shares[0]["weights"])
        if wanted["skipped"] is not None:
            assert shares[0]["skipped"] is not None
            continue
        assert shares[0]["losses"] == pytest.approx(wanted["losses"], rel=1e-4)
        difference = (shares[0]["gradient"] - wanted["gradient"]).norm() / wanted["gradient"].norm()
        assert difference < 1e-3


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_step_that_is_not_finite_on_one_worker_is_skipped_on_all(tmp_path, alone, num_workers):
    workers = [alone] if num_workers == 1 else steps_with(tmp_path, num_workers)
    poisoned = gloo_steps.POISONED - 1
    for worker in workers:
        assert [number for number, step in enumerate(worker) if step["skipped"] is not None] == [poisoned]
        image = workers[-1][poisoned]["images"][-1]
        assert str(image) in worker[poisoned]["skipped"]
        assert "loss with images" in worker[poisoned]["skipped"]
        assert torch.equal(worker[poisoned]["weights"], worker[poisoned - 1]["weights"])
        assert not torch.equal(worker[poisoned + 1]["weights"], worker[poisoned]["weights"])
        assert worker[-1]["weights"].isfinite().all()


def build_step(batch_size=2, read_every=1, **changes):
    """A step of the tiny model, its state, and a batch."""
    settings = gloo_steps.build_settings(**changes)
    state = gloo_steps.build_state(settings)
    take_step = TrainingStep(state, settings, torch.device("cpu"), torch.float32, read_every)
    dataset = gloo_steps.build_dataset()
    items = next(iter(EpochSampler(len(dataset), batch_size, 1)))
    return take_step, state, collate([dataset[item] for item in items])


@pytest.mark.compute
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(optimizer):
    take_step, state, batch = build_step(optimizer=optimizer)
    parameter = state.model.head.class_layer.weight
    (first,) = take_step(batch)
    assert first.skipped is None
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    hook = parameter.register_hook(lambda gradient: gradient * torch.inf)
    (result,) = take_step(batch)
    assert result.skipped is not None
    assert result.skipped.startswith("the gradient with images [")
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
    assert (state.step, state.skipped, state.skipped_in_a_row) == (2, 1, 1)
    hook.remove()
    (result,) = take_step(batch)
    assert result.skipped is None
    assert not torch.equal(parameter, before["head.class_layer.weight"])
    assert (state.step, state.skipped, state.skipped_in_a_row) == (3, 1, 0)


@pytest.mark.compute
def test_results_read_together_are_those_of_steps_read_one_by_one():
    found = {}
    for read_every in (1, 3):
        take_step, state, batch = build_step(read_every=read_every)
        poisoned = batch._replace(images=torch.full_like(batch.images, torch.nan, dtype=torch.float32))
        results = [take_step(given) for given in (batch, poisoned, batch, batch)]
        assert [len(read) for read in results] == ([1] * 4 if read_every == 1 else [0, 0, 3, 0])
        results.append(take_step.read())
        told = [(one.step, one.skipped, one.losses["class"]) for read in results for one in read]
        found[read_every] = (str(told), state.skipped, state.skipped_in_a_row, state.model.head.class_layer.weight)
    assert found[1][:3] == found[3][:3]
    assert found[3][1:3] == (1, 0)
    assert torch.equal(found[1][3], found[3][3])


#: of a step of 8 images with a tiny MobileNetV2, between two readings. With R-50, image by image, it was 338 waits
MOST_KERNELS, MOST_WAITS = 1600, 0


@pytest.mark.compute
def test_kernels_and_waits_of_a_step():
    take_step, _, batch = build_step(batch_size=8, read_every=3)
    take_step(batch)
    with GpuCounter() as counter:
        assert take_step(batch) == []
    assert counter.waits.total() <= MOST_WAITS, counter.waits
    assert counter.kernels.total() <= MOST_KERNELS, counter.kernels


@pytest.mark.compute
def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path):
    """Its optimiser was not fused: a step that is not finite must still change no weights."""
    take_step, state, batch = build_step(optimizer="adamw")
    take_step(batch)
    state.save(tmp_path, take_step.settings, {})
    saved = read_state(tmp_path)
    for group in saved["optimizer"]["param_groups"]:
        group["fused"] = None
    take_step, state, _ = build_step(optimizer="adamw")
    state.restore(saved)
    before = state.model.head.class_layer.weight.detach().clone()
    poisoned = batch._replace(images=torch.full_like(batch.images, torch.nan, dtype=torch.float32))
    (result,) = take_step(poisoned)
    assert result.skipped is not None
    assert torch.equal(state.model.head.class_layer.weight, before)
