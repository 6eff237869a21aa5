"""What a request is refused with."""

from __future__ import annotations

from lafsfs.errors import CallerError


class Refusal(CallerError):
    """A request that is answered with a status of 400 or more. The reason is sent: no secrets."""

    def __init__(self, status: int, reason: str, *headers: tuple[str, str]) -> None:
        super().__init__(f"{status}: {reason}")
        self.headers = headers
        self.status = status
        self.reason = reason
