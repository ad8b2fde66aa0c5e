"""The micro-benchmarks: what is read from Go, and that every stage has a budget."""

from spvnperf import micro

OUTPUT = """goos: linux
BenchmarkHead-2        	 1000	       640.0 ns/op	 900.00 MB/s	       0 B/op	       0 allocs/op
BenchmarkHead-2        	 1000	       660.0 ns/op	 900.00 MB/s	       0 B/op	       0 allocs/op
BenchmarkHead-2        	 1000	       610.0 ns/op	 900.00 MB/s	       0 B/op	       0 allocs/op
BenchmarkHeadSmall     	 1000	       160.5 ns/op
BenchmarkOther-2       	 1000	         1.0 ns/op
PASS
"""


def test_go_benchmarks_become_medians():
    assert micro.parse_go(OUTPUT) == {"parse, ten fields": 640.0, "parse": 160.5}


def test_every_go_stage_has_a_budget():
    assert set(micro.GO.values()) <= set(micro.budgets())


def test_a_stage_over_its_budget_is_told():
    found = {stage: budget for stage, (budget, _) in micro.budgets().items()}
    assert "**over**" not in micro.table(found)
    found["parse"] += 1
    assert micro.table(found).count("**over**") == 1
