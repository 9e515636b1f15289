"""Sources of events: files, pipes, network streams and cameras behind one `open_source`."""

from evhands.sources.lasting import SourceWarning
from evhands.sources.opening import file_of, open_source

__all__ = ["SourceWarning", "file_of", "open_source"]
