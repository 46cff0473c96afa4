"""`python -m benchmarks.bill`: what is fixed, what an image costs and what a part costs."""

from __future__ import annotations

import pytest

from benchmarks.bill import IMAGES_PER_PART, KINDS, READ, WRITTEN, LakeBill, count, separate
from benchmarks.object_store.proxy import Request
from jobs.bench.bill import PER_MILLION, Requests


def request(kind: str, path: str = "/bucket/lake/a.jpg", sent: int = 0, received: int = 0) -> Request:
    return Request(0.0, kind, path, 200, False, sent, received)


def test_requests_are_counted_by_kind_and_without_the_lease():
    requests = [
        request("GET", received=1_500_000),
        request("GET", received=500_000),
        request("PUT", sent=250_000),
        request("PUT", "/bucket/out/_state/lease.json", sent=100),
        request("LIST", "/bucket", received=900),
    ]
    counts = count(requests)
    assert {name: value for name, value in counts.items() if value} == {
        "GET": 2.0, "PUT": 1.0, "LIST": 1.0, READ: 2.0, WRITTEN: 0.25,
    }  # fmt: skip
    assert set(counts) == {*KINDS, READ, WRITTEN}


def test_fixed_image_and_part_are_separated():
    def counts(images: int, parts: int) -> dict[str, float]:
        return {"GET": 7 + 1.5 * images + 3 * parts}

    parts = separate(counts(100, 1), counts(300, 1), counts(300, 4), (100, 300), 4)
    assert parts == [{"GET": pytest.approx(7)}, {"GET": pytest.approx(1.5)}, {"GET": pytest.approx(3)}]


def test_a_million_images_have_sixteen_parts():
    zero = dict.fromkeys((*KINDS, READ, WRITTEN), 0.0)
    bill = LakeBill(
        "tar", {**zero, "LIST": 5.0}, {**zero, "GET": 0.5, "HEAD": 0.25}, {**zero, "PUT": 2.0, "DELETE": 9.0}
    )
    assert IMAGES_PER_PART * 15 < 1_000_000 <= IMAGES_PER_PART * 16
    assert bill.requests() == Requests(reads=750_000, writes=5 + 32)


def test_every_kind_of_lake_has_counted_requests():
    assert set(PER_MILLION) == {"image", "tar", "parquet"}
    assert all(requests.reads > 0 and requests.writes > 0 for requests in PER_MILLION.values())
