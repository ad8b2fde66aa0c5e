"""The version, in one place: packaging and the Server field read it from here."""

__version__ = "0.2.0"
