"""Why a request is not answered, with the status that says so."""

from __future__ import annotations

BAD, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, SLOW, TOO_LARGE = 400, 401, 403, 404, 408, 413
UNSUPPORTED, UNREADABLE, BUSY, LONG_HEAD, FAILED, NOT_READY = 415, 422, 429, 431, 500, 503


class Refused(Exception):  # noqa: N818 - it says what happened to the request
    """A request that is not answered: `status` is that of HTTP, `message` says why."""

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after
        """Seconds after which the same request may be answered."""

    @property
    def headers(self) -> dict[str, str]:
        found = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == UNAUTHORIZED:
            found["WWW-Authenticate"] = "Bearer"
        return found
