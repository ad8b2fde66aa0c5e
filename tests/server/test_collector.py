"""--gc-threshold: Python's garbage collector in a process that does nothing but serve."""

from __future__ import annotations

import gc
import json

import httpx
import pytest
from support.app import app
from support.process import Served

from spvn import testing

DEFAULT = gc.get_threshold()[0]


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]])
@pytest.mark.parametrize(
    ("arguments", "youngest"), [([], 10_000), (["--gc-threshold", "50000"], 50_000), (["--gc-threshold", "0"], DEFAULT)]
)
def test_the_young_are_collected_later_and_the_app_is_left_out(workers, arguments, youngest):
    served = Served(*workers, *arguments)
    try:
        # A child says so once it is ready, which is a moment after the core knows.
        threshold, frozen = json.loads(served.get("/collector").body)
        while workers and youngest != DEFAULT and threshold[0] == DEFAULT:
            threshold, frozen = json.loads(served.get("/collector").body)
    finally:
        served.end()
    assert threshold[0] == youngest
    assert (frozen > 1000) == (youngest != DEFAULT)


def test_inside_another_program_it_is_left_alone():
    before = gc.get_threshold(), gc.get_freeze_count()
    with testing.serve(app) as server:
        threshold, frozen = httpx.get(f"{server.url}/collector").json()
    assert (tuple(threshold), frozen) == before
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def test_a_higher_threshold_of_the_apps_stays():
    served = Served("--gc-threshold", "1000", app="support.collected:app")
    try:
        threshold, _ = json.loads(served.get("/collector").body)
    finally:
        served.end()
    assert threshold[0] == 77_777
