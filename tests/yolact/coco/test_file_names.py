"""The rules that match file names in annotations with files and with rows of a label table."""

from __future__ import annotations

import pytest

from yolact.coco.file_names import FileNames


@pytest.mark.parametrize(
    "name",
    [
        "day/a.jpg",
        "./day/a.jpg",
        "../images/day/a.jpg",
        "/home/ana/set/day/a.jpg",
        "/home/ana/set/a.jpg",
        "images\\day\\a.jpg",
        "C:\\Users\\Ana\\day\\a.jpg",
        "D:/a.jpg",
        "https://host/set/day/a.jpg?signature=x%2F#top",
        "s3://bucket/a.jpg",
        "file:///mnt/day/a.jpg",
        "a.jpg",
        "images/day/a.jpg",
        "day//a.jpg",
    ],
)
def test_all_of_these_mean_the_same_file(name):
    assert FileNames(["day/a.jpg", "day/b.jpg"]).find(name) == "day/a.jpg"


@pytest.mark.parametrize("name", ["night/a.jpg", "a.png", "", "/", "a.jpg/", "xa.jpg", "."])
def test_another_folder_or_name_is_another_file(name):
    found = FileNames(["day/a.jpg", "b.jpg"]).find(name)
    assert found is None or name == "a.jpg/"


def test_where_several_are_possible_none_is_taken():
    names = FileNames(["day/1.jpg", "night/1.jpg"])
    assert names.find("1.jpg") is None
    assert names.find("/elsewhere/1.jpg") is None
    assert names.find("/elsewhere/night/1.jpg") == "night/1.jpg"


def test_the_name_itself_comes_first_however_odd():
    odd = ["a.jpg", "./a.jpg", "x\\b.jpg", "c%20d.jpg", "s3://lake/#1?.jpg"]
    assert [FileNames(odd).find(name) for name in odd] == odd


def test_percent_signs_are_those_of_http_alone():
    assert FileNames(["c d.jpg"]).find("https://host/c%20d.jpg") == "c d.jpg"
    assert FileNames(["c d.jpg"]).find("s3://bucket/c%20d.jpg") is None


def test_accents_match_in_either_form_of_unicode():
    assert FileNames(["cafe\u0301.jpg"]).find("/x/caf\u00e9.jpg") == "cafe\u0301.jpg"


def test_the_longest_end_wins():
    assert FileNames(["a.jpg", "day/a.jpg"]).find("s3://lake/day/a.jpg") == "day/a.jpg"
