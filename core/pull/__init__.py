"""Pull: attributes of entities as nested maps, as a pattern says."""

from natalog.core.pull.parse import Pattern, parse_pull
from natalog.core.pull.pull import pull, pull_many

__all__ = ["Pattern", "parse_pull", "pull", "pull_many"]
