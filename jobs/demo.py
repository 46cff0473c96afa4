"""Everything on a small lake: draw plates, label them, show what was written and how to look at it.

    yolact demo --output demo

Takes two to four minutes on 2 cores, Ray's start included. Prints the AP against the plates' exact ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs import evaluate, label, plates, report
from jobs.runtime.errors import EXIT_OK

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class DemoConfig:
    """Options of `yolact demo`."""

    output: str = "demo"
    """Folder for the lake and its labels."""
    num_plates: int = 48
    """Synthetic microscopy plates to draw."""


def run(config: DemoConfig) -> int:
    """Draw, label, evaluate, make the report page; returns the exit code of the labelling."""
    import pyarrow.parquet as pq

    from jobs.table.output import Output

    lake, labels = f"{config.output}/lake", f"{config.output}/labels"
    truth, page = f"{lake}/ground_truth.json", f"{config.output}/report.html"
    print(f"== a lake of tar shards: {lake}", flush=True)
    plates.run(
        plates.PlatesConfig(lake, num_plates=config.num_plates, layout="tar", plates_per_shard=12, mean_diameter=20.0)
    )
    print(f"\n== yolact label {lake}/shards --output {labels}", flush=True)
    exit_code = label.run(label.LabelConfig((f"{lake}/shards",), labels, address="local"))
    if exit_code != EXIT_OK:
        return exit_code
    print("\n== what was written")
    _show_rows(pq.read_table(Output(labels).labels))
    print(f"\n== yolact evaluate {labels} --ground-truth {truth} --max-detections 500", flush=True)
    evaluate.run(evaluate.EvaluateConfig(labels, truth, max_detections=(500,)))
    print(f"\n== yolact report {labels} --output {page} --ground-truth {truth}", flush=True)
    report.run(report.ReportConfig(labels, page, ground_truth=truth, address="local"))
    print(
        f"\n== how to look at it\n"
        f"  {page}   open it in a browser\n"
        f"  .venv/bin/python -c \"import pandas; print(pandas.read_parquet('{Output(labels).labels}'))\""
    )
    return exit_code


def _show_rows(table: pa.Table) -> None:
    for row in table.slice(0, 3).to_pylist():
        found = f"{row['height']}×{row['width']}, {len(row['instances'])} instances"
        print(f"  {row['image_id']}: {row['status']}, {found}")
        for instance in row["instances"][:2]:
            box = ", ".join(f"{side:.0f}" for side in instance["bbox"])
            print(f"      {instance['category']} {instance['score']:.2f}, box [{box}], mask of {instance['area']} px")
    print(f"  … {table.num_rows} rows")
