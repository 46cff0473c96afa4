"""Ground truth of the report: odd files are read as in evaluate, broken annotations are left out and counted."""

from __future__ import annotations

import numpy as np
import pytest
from support.odd_annotations import BROKEN, BROKEN_IMAGES, HEIGHT, REFUSED, WIDTH
from support.tables import instance, row, write_labels

from jobs.report.truth import match_instances, read_truth
from jobs.runtime.errors import UsageError
from jobs.table.read import read_labels


def by_name(oddities):
    return pytest.mark.parametrize("oddity", oddities, ids=lambda oddity: oddity.name)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of both images with the object that each has at (10, 10)."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:22, 10:22] = True
    found = [row(f"lake/{name}.png", (HEIGHT, WIDTH), [instance(mask, 0, 0.9)]) for name in "ab"]
    return list(read_labels(write_labels(tmp_path_factory.mktemp("table") / "out", [found])))


@pytest.mark.compute
@by_name([*BROKEN, *BROKEN_IMAGES])
def test_the_page_is_made_without_what_is_broken_and_says_so(tmp_path, rows, oddity):
    (tmp_path / "odd.json").write_bytes(oddity.text())
    truth = read_truth(str(tmp_path / "odd.json"))
    scores = truth.score(rows)
    assert scores.coverage[-1].endswith("broken annotations or images of the ground truth are left out")
    assert 0 < scores.by_kind["mask"].ap <= 1
    for labelled in rows:
        objects = truth.of(labelled)
        assert objects is None or match_instances(labelled.instances, objects) is not None


@by_name(REFUSED)
def test_other_files_are_refused_in_one_line(tmp_path, oddity):
    (tmp_path / "odd.json").write_bytes(oddity.text())
    with pytest.raises(UsageError, match=oddity.refused):
        read_truth(str(tmp_path / "odd.json"))


def test_a_ground_truth_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="there is no annotation file"):
        read_truth(str(tmp_path / "none.json"))
