"""Errors that a person gets to read: one line each, naming what happened and what to do."""

from __future__ import annotations


class PerfError(Exception):
    """Stops the run: something the harness needs is not there."""


class RowError(Exception):
    """Spoils one row: the server did not start, or the client failed. The run goes on and the row says so."""


class Skipped(Exception):
    """The row does not apply: the server lacks the feature, or the machine the means. The report gives the reason."""
