"""Requests to Ray's autoscaler: room for every wanted worker, and none once the run is over."""

import logging
from collections.abc import Callable, Mapping

_logger = logging.getLogger(__name__)

_ASK_AGAIN_S = 300.0

Request = Callable[[list[dict[str, float]]], None]


class AutoscalerHint:
    """A standing request for machines. A cluster has one: each replaces the last, also another program's.

    Without it the autoscaler starts a machine only for actors that wait already, and removes one while a
    worker is being restarted.
    """

    def __init__(self, request: Request, bundle: Mapping[str, float], clock: Callable[[], float]) -> None:
        """Start without a request.

        Args:
            request: `ray.autoscaler.sdk.request_resources`, of bundles.
            bundle: resources of one worker; amounts of zero are left out.
            clock: monotonic seconds.
        """
        self._request = request
        self._bundle = {name: amount for name, amount in bundle.items() if amount}
        self._clock = clock
        self._workers = 0
        self._asked_at = 0.0

    def ask(self, workers: int) -> None:
        """Request room for `workers`, if the number has changed or the last request is old."""
        is_old = workers > 0 and self._clock() - self._asked_at >= _ASK_AGAIN_S
        if self._bundle and (workers != self._workers or is_old):
            self._send(workers)

    def release(self) -> None:
        """Withdraw the request."""
        if self._workers:
            self._send(0)

    def _send(self, workers: int) -> None:
        self._workers, self._asked_at = workers, self._clock()
        try:
            self._request([dict(self._bundle) for _ in range(workers)])
        except Exception as error:
            # Catch any exception: this is a hint, and Ray's control plane may be temporarily unavailable.
            _logger.warning("the autoscaler could not be asked for %d workers: %s", workers, error)
