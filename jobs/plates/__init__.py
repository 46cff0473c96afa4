"""Draw a lake of synthetic fluorescence-microscopy plates with exact ground truth.

    yolact plates --output demo/plates --num-plates 200 --layout tar

OUTPUT then holds `ground_truth.json` (COCO instances, one category `nucleus`) and either `images/plate-000000.png …` or
`shards/plates-000000.tar …` (WebDataset). The same options give the same bytes. One core draws about 25 plates of
512 × 512 px a second.
"""

from __future__ import annotations

from jobs.plates.options import PlatesConfig

__all__ = ["PlatesConfig", "run"]


def run(config: PlatesConfig) -> int:
    """Draw and write the plates; returns the exit code."""
    from jobs.plates.command import write_plates
    from jobs.runtime.errors import EXIT_OK

    print(write_plates(config))
    return EXIT_OK
