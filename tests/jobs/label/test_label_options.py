"""Options of `yolact label` that no run can have."""

from __future__ import annotations

import pytest

from jobs.label.options import LabelConfig, check_options
from jobs.runtime.errors import UsageError


@pytest.mark.parametrize("output", ["hf://datasets/me/labels", "HF://datasets/me/labels"])
def test_a_hugging_face_repository_is_no_output(output):
    with pytest.raises(UsageError, match="each object would be a commit") as caught:
        check_options(LabelConfig(("hf://datasets/me/photos",), output))
    assert "\n" not in str(caught.value)
    check_options(LabelConfig(("hf://datasets/me/photos",), "s3://bucket/labels"))
