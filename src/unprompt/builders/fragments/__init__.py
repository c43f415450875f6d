"""Reading lists of fragments: text, csv, tsv and json files, clip-interrogator's package and its caches."""

from unprompt.builders.fragments.ci_cache import ci_labels, read_ci_cache
from unprompt.builders.fragments.lists import KINDS, PACKAGES, read_fragments

__all__ = ["KINDS", "PACKAGES", "ci_labels", "read_ci_cache", "read_fragments"]
