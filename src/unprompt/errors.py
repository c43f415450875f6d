"""The errors unprompt raises on purpose. Each message is one line that names the value and the remedy."""


class UnpromptError(Exception):
    """Root of all errors that are the input's fault or the environment's, never a bug."""


class LibraryError(UnpromptError):
    """A library cannot be opened or written: missing, locked, corrupt, or made by another encoder."""


class EncoderError(UnpromptError):
    """An encoder cannot be found or loaded: unknown name, missing extra, wrong weights, unreachable hub."""


class SourceError(UnpromptError):
    """A source of pictures or prompts cannot be read at all (single bad entries are skipped, not raised)."""


class QueryError(UnpromptError):
    """A query cannot be answered: unreadable picture, unknown fragment kind, k out of range."""


class CaptionerError(UnpromptError):
    """A captioner cannot be built, loaded or run: a value out of range, weights that do not fit, a missing extra."""


class EvaluationError(UnpromptError):
    """Something cannot be scored: unknown metric, lengths that differ, a broken submission, a missing extra."""
