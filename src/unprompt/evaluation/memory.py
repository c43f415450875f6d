"""The most memory that this process held."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


class PeakMemory:
    """Peak resident memory since this was made, where the system can forget an earlier peak (Linux).

    Elsewhere it is the peak since the process began.
    """

    def __init__(self) -> None:
        try:
            _RESET.write_text("5")
        except OSError:
            return

    def bytes(self) -> int:
        """The peak in bytes; 0 where the system does not say it."""
        try:
            found = _PEAK.search(_STATUS.read_text())
        except OSError:
            found = None
        if found:
            return 1024 * int(found[1])
        try:
            import resource
        except ImportError:  # Windows
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
