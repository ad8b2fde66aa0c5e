"""The support app, of an author who has set the collector's threshold."""

import gc

from support.app import app

__all__ = ["app"]

gc.set_threshold(77_777, *gc.get_threshold()[1:])
