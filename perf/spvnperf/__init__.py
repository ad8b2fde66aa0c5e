"""The performance harness: one environment for all servers, one server at a time, interleaved rounds.

`works` says what is measured, `servers` how each server is started, `runner` in which order; `wrk` and `load` are the
clients, `procfs` reads what the server used, `report` and `plots` render the results. The driver needs nothing but
Python's standard library.
"""
