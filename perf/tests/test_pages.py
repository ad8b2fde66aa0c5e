"""The pages that are written from results: the claims of 2023, and the parts of README.md and docs/."""

from pathlib import Path

import pytest
from test_results import results, row

from spvnperf import claims, publish
from spvnperf.errors import PerfError


def crowd(server, size, longest, **more):
    latency = {"p50": 300_000, "p90": 1, "p99": 2, "p99.9": 3, "max": longest}
    return row(server, 0, 9, 100, work="crowd", kind="closed", size=size, planned=1000, latency=latency, **more)


def page(*rows):
    return claims.render({**results(*rows), "versions": {"spvn": "1", "hypercorn": "2", "python": "3.13.0"}})


def test_a_claim_that_does_not_hold_says_so():
    text = page(crowd("spvn", 10000, 900_000), crowd("uvicorn", 7500, 1_400_000), crowd("uvicorn", 10000, 900_000))
    assert "**uvicorn: the claim does not hold today**: every call of 7,500 and 10,000 clients was answered" in text
    assert "**hypercorn** was not asked by 7,500 clients" in text
    assert "**spvn** in the same place: every call of 10,000 clients was answered, and none stalled." in text


def test_drops_and_stalls_are_two_claims():
    dropped = crowd("hypercorn", 10000, 1_400_000, errors={"read: reset": 3})
    assert "**hypercorn: that it drops requests holds, that it stalls does not**: it lost 3 calls" in page(dropped)
    stalled = page(crowd("hypercorn", 7500, 1_600_000))
    assert "that it drops requests does not hold today, that it stalls does" in stalled
    assert "a call waited 1.60 s, where half took no more than 300.0 ms" in stalled
    both = page(crowd("hypercorn", 7500, 1_600_000, errors={"read: reset": 3}), crowd("hypercorn", 5000, 9e6))
    assert "**hypercorn: the claim holds**" in both and "5,000 clients a call" not in both


def test_our_own_losses_are_told():
    assert "**spvn** in the same place: it lost 2 calls of 7,500" in page(crowd("spvn", 7500, 5, errors={"connect": 2}))


def test_the_cost_of_a_call_is_compared_as_a_ratio():
    few = [row("spvn", 0, 10, 1), row("hypercorn", 0, 20, 1)]
    assert "does not hold at every number of connections: at the least it is 2.0 times" in page(
        crowd("spvn", 100, 1), *few
    )
    many = [row("spvn", 0, 10, 1), row("hypercorn", 0, 40, 1)]
    assert "The claim holds at every number of connections" in page(crowd("spvn", 100, 1), *many)
    assert claims.render(results(*few)) == ""


def test_parts_between_marks_are_written_again(tmp_path):
    rows = [
        row(server, 0, cpu, 123_456, work=work, size=size)
        for work, size, _ in publish.MAIN
        for server, cpu in (("uvicorn", 20), ("spvn", 7), ("freastal", 6))
    ]
    data = {**results(*rows), "versions": {"uvicorn": "1", "spvn": "2", "freastal": "3", "python": "3.13.0"}}
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results: main -->\nearlier figures\n<!-- end of results -->\nafter\n")
    output = tmp_path / "results" / "full.json"
    assert publish.publish(data, output, (readme,)) == [readme]
    text = readme.read_text()
    assert text.startswith("before\n<!-- results: main -->\nCPU per request") and text.endswith("results -->\nafter\n")
    assert "earlier figures" not in text and "| spvn 2 | 7.00 us, 123,000/s |" in text
    servers = [line.split()[1] for line in text.splitlines() if " us, " in line]
    assert servers == ["spvn", "freastal", "uvicorn"]
    assert publish.publish(data, output, (readme,)) == []


def test_an_unknown_part_is_told(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results: nothing -->\n<!-- end of results -->\n")
    with pytest.raises(PerfError, match="no such part of the results: nothing"):
        publish.publish(results(), tmp_path / "full.json", (readme,))


def test_the_pages_have_their_parts():
    found = [part for path in publish.PAGES for _, part, _ in publish.MARK.findall(Path(path).read_text())]
    assert sorted(found) == sorted(publish.BLOCKS)
