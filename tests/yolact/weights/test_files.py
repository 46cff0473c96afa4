"""Weights as files: where they may lie, and that none is ever half written."""

from __future__ import annotations

import pytest

from yolact.weights.files import read_bytes, write_bytes


@pytest.mark.parametrize("scheme", ["", "file://", "FILE://"])
def test_a_local_file_is_written_in_one_piece_with_its_folders(tmp_path, scheme):
    name = f"{scheme}{tmp_path}/new/folder/model.zip"
    write_bytes(name, b"weights")
    write_bytes(name, b"other weights")
    assert read_bytes(name) == b"other weights"
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["model.zip"]


def test_a_file_behind_another_scheme_is_written_and_read(tmp_path):
    write_bytes("memory://weights/model.zip", b"weights")
    assert read_bytes("memory://weights/model.zip") == b"weights"


def test_a_missing_file_behind_file_is_told_by_the_name_that_the_user_gave(tmp_path):
    with pytest.raises(ValueError, match=f"no file at file://{tmp_path}/nowhere.pth"):
        read_bytes(f"file://{tmp_path}/nowhere.pth")
