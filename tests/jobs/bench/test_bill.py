"""The bill of `yolact bench`: requests of a million images, and their price."""

from __future__ import annotations

import pytest

from jobs.bench import bill
from jobs.bench.bill import Bill, Prices, Requests


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    per_million = {"image": Requests(1_000_000, 20_000), "tar": Requests(40_000, 30_000), "parquet": Requests(0, 0)}
    monkeypatch.setattr(bill, "PER_MILLION", per_million)


def test_the_requests_are_those_of_the_kind_of_lake():
    assert Bill.of(["tar", "tar"], Prices()).requests == Requests(40_000, 30_000)


def test_a_mixed_lake_has_its_share_of_each():
    assert Bill.of(["tar", "image", "image", "image"], Prices()).requests == Requests(760_000, 22_500)


def test_prices_are_for_a_thousand_requests():
    assert Bill.of(["image"], Prices(reads=0.0004, writes=0.005)).money == pytest.approx(0.40 + 0.10)
    assert Bill.of(["image"], Prices(reads=0.0, writes=1.0)).money == pytest.approx(20.0)


def test_the_lines_add_the_devices_where_their_price_is_known():
    found = Bill.of(["image"], Prices())
    (alone,) = found.lines(devices=None)
    assert alone.endswith("1,000,000 reads, 20,000 writes: 0.50")
    assert found.lines(devices=3.5)[1].endswith(" 4.00")


def test_the_json_holds_counts_prices_and_money():
    assert Bill.of(["tar"], Prices()).to_json() == {
        "requests": {"reads": 40_000, "writes": 30_000},
        "prices": {"reads": 0.0004, "writes": 0.005},
        "money_per_million_images": pytest.approx(0.166),
    }
