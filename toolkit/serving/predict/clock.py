"""What time it is: for streams, whose answers come in time or not at all."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta


class Clock:
    """Seconds from any moment, by the clock of this machine."""

    def now(self) -> float:
        return time.monotonic()

    def wait_until(self, moment: float, stop: threading.Event) -> None:
        """Return at `moment`, or once `stop` is set."""
        stop.wait(max(moment - self.now(), 0))

    def date(self, moment: float) -> datetime:
        """The date and time of `moment`, in UTC."""
        return datetime.now(UTC) - timedelta(seconds=self.now() - moment)
