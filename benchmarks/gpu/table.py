"""The figures of `python -m benchmarks.gpu` as Markdown."""

from __future__ import annotations

from typing import Any


def markdown(figures: dict[str, Any]) -> str:
    """One table for each kind of step; steps that failed or were not reached are named."""
    machine, steps = figures["machine"], figures["steps"]
    name = machine.get("name", f"CPU, {machine['cpus']} cores")
    lines = [f"Measured on: {name}, torch {machine['torch']}.", ""]
    if "parity" in steps:
        lines += [f"Parity with the original release in float32: {steps['parity']['result']}.", ""]
    peak = steps.get("peak", {}).get("tflops")
    if peak:
        lines += [f"Peak of a large matrix product: {peak:.3g} TFLOP/s.", ""]
    lines += _networks(steps, peak) + _labelling(steps) + _counts(steps)
    for kind in ("both ways", "agreement", "training"):
        if kind in steps:
            lines += [f"{kind}: " + ", ".join(f"{key} {_short(value)}" for key, value in steps[kind].items()), ""]
    for step, reason in figures["failed"].items():
        lines.append(f"Failed: {step}: {reason}")
    if figures["not_reached"]:
        lines.append("Not reached in time: " + ", ".join(figures["not_reached"]))
    return "\n".join(lines).rstrip() + "\n"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _networks(steps: dict[str, Any], peak: float | None) -> list[str]:
    lines = ["| network | precision | engine | batch | images/s | share of the peak |", "|---|---|---|---|---|---|"]
    for name, found in steps.items():
        if name.startswith("network "):
            _, model, precision, engine = name.split()
            for batch, speed in sorted(found["images_per_second"].items(), key=lambda pair: int(pair[0])):
                share = f"{100 * speed * found['gflop'] / 1000 / peak:.0f} %" if peak else ""
                lines.append(f"| {model} | {precision} | {engine} | {batch} | {speed:,.0f} | {share} |")
    return [*lines, ""] if len(lines) > 2 else []


def _labelling(steps: dict[str, Any]) -> list[str]:
    head = ["batch × instances an image", "input ms", "network ms", "post-processing ms", "images/s", "by two threads"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, found in steps.items():
        if name.startswith("labelling "):
            times = " | ".join(f"{found[key]:.3f}" for key in ("input_ms", "network_ms", "postprocess_ms"))
            speeds = " | ".join(f"{found[key]:,.0f}" for key in ("images_per_second", "by_two_threads"))
            lines.append(f"| {name.removeprefix('labelling ')} | {times} | {speeds} |")
    return [*lines, ""] if len(lines) > 2 else []


def _counts(steps: dict[str, Any]) -> list[str]:
    lines = []
    for stage, found in steps.get("counts", {}).items():
        if isinstance(found, dict):
            lines.append(f"- {stage}: " + ", ".join(f"{key} {_short(value)}" for key, value in found.items()))
    return [*lines, ""] if lines else []
