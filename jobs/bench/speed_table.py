"""The figures of `yolact bench` as JSON values, and as the table that it prints."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from jobs.bench.bill import Bill

_NAMES = {
    "end_to_end": "end to end",
    "model_only": "model only",
    "postprocess_only": "post-processing only",
    "decode_only": "fetch and decode only",
    "plain_loop": "the original's loop",
}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, extremes, and every round's value."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "rounds": [round(value, 4) for value in values],
    }


def estimate(images: int, devices: int, price_per_hour: float | None, per_device: float) -> dict[str, Any]:
    """Hours and money for `images` on `devices`, each at `per_device` images/s. The start of the job is left out."""
    hours = images / (per_device * devices) / 3600
    money = None if price_per_hour is None else hours * devices * price_per_hour
    return {
        "images": images,
        "devices": devices,
        "images_per_second": per_device * devices,
        "hours": hours,
        "price_per_hour": price_per_hour,
        "money": money,
        "money_per_million_images": None if money is None else money / images * 1e6,
    }


def render(figures: dict[str, Any], bill: Bill) -> str:
    """The table that the command prints."""
    how = f"{figures['precision']} by {figures['engine']}"
    lines = [
        f"{figures['model']}, {how} on {figures['device']}: {figures['plan']}",
        f"{figures['images_measured']:,} images, {figures['instances_per_image']:.1f} instances an image, "
        f"{figures['rounds']} round{'s' * (figures['rounds'] > 1)}",
        "",
        f"{'images/s':<24}{'median':>10}{'lowest':>10}{'highest':>10}",
    ]
    for key, name in _NAMES.items():
        if key in figures["images_per_second"]:
            lines.append(_line(name, figures["images_per_second"][key], ".2f"))
    lines.append("")
    lines.append(_line("efficiency *", figures["ratios"]["efficiency"], ".3f"))
    if "times_plain_loop" in figures["ratios"]:
        lines.append(_line("× the original's loop", figures["ratios"]["times_plain_loop"], ".2f"))
    lines += [_line(f"{name} busy, %", values, ".0f") for name, values in figures["busy_percent"].items()]
    lines += ["* end to end ÷ the lower of model only and decode only", "", _estimate_line(figures["estimate"])]
    lines += bill.lines(devices=figures["estimate"]["money_per_million_images"])
    if figures["failed_images"]:
        lines.append(f"{figures['failed_images']:,} of the images could not be labelled")
    return "\n".join(lines)


def _line(name: str, values: dict[str, Any], form: str) -> str:
    return f"{name:<24}" + "".join(f"{values[key]:>10{form}}" for key in ("median", "min", "max"))


def _estimate_line(values: dict[str, Any]) -> str:
    devices = f"{values['devices']:,} device{'s' * (values['devices'] > 1)}"
    line = f"{values['images']:,} images on {devices}: {values['hours']:,.1f} hours"
    if values["money"] is not None:
        per_million = values["money_per_million_images"]
        line += f", {values['money']:,.2f} at {values['price_per_hour']:g} an hour each ({per_million:,.2f} a million)"
    return line
