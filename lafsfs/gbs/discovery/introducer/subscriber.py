"""The Foolscap side: connect to an introducer, subscribe, hand on what it announces.

The protocol is the introducer's version 2, as stock 1.20 speaks it: ``subscribe_v2`` with a
reference to us, whose ``announce_v2`` is then called with sets of signed announcements.
"""

# Foolscap and Twisted are optional and have no types. Foolscap reads the signatures of interfaces.
# mypy: disable-error-code="import-not-found, import-untyped, misc, no-untyped-call, no-untyped-def"
# ruff: noqa: ANN001, ANN201, ANN401, B008

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foolscap.api import Any as AnyConstraint
from foolscap.api import DictOf, Referenceable, RemoteInterface, SetOf, Tub
from zope.interface import implementer

from lafsfs import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PROTOCOL = b"http://allmydata.org/tahoe/protocols/introducer/v2"
SERVICE = b"storage"
KEEPALIVE = 120  # seconds of silence after which the introducer is asked for a sign of life
DISCONNECT = 600  # seconds of silence after which the connection counts as lost

SUBSCRIBER_INFO = {
    b"version": 0,
    b"nickname": "lafsfs",
    b"app-versions": [],
    b"my-version": f"lafsfs/{__version__}",
    b"oldest-supported": "",
}


class SubscriberInterface(RemoteInterface):
    """What introducers call."""

    __remote_name__ = "RIIntroducerSubscriberClient_v2.tahoe.allmydata.com"

    def announce_v2(announcements=SetOf(AnyConstraint())):
        return None


class IntroducerInterface(RemoteInterface):
    """What introducers are asked."""

    __remote_name__ = "RIIntroducerPublisherAndSubscriberService_v2.tahoe.allmydata.com"

    def get_version():
        return DictOf(bytes, AnyConstraint())

    def subscribe_v2(
        subscriber=SubscriberInterface,
        service_name=bytes,
        subscriber_info=DictOf(bytes, AnyConstraint()),
    ):
        return None


@implementer(SubscriberInterface)
class Subscriber(Referenceable):
    """Subscribes whenever there is a connection.

    ``announced`` gets each set of signed announcements, unverified. ``subscribed`` is called each
    time a subscription stands, ``refused`` when it is connected to but cannot be subscribed to.
    ``complain`` gets one line.
    """

    def __init__(
        self,
        announced: Callable[[Iterable[object]], None],
        subscribed: Callable[[], None],
        refused: Callable[[], None],
        complain: Callable[[str], None],
    ) -> None:
        self._announced = announced
        self._subscribed = subscribed
        self._refused = refused
        self._complain = complain

    def connect(self, furl: str) -> Tub:
        """Start connecting, for as long as the Tub that is returned is kept."""
        tub = Tub()
        tub.setOption("keepaliveTimeout", KEEPALIVE)
        tub.setOption("disconnectTimeout", DISCONNECT)
        tub.setOption("accept-gifts", False)
        tub.startService()
        tub.connectTo(furl, self._connected)
        tub.getReference(furl).addErrback(self._say, "cannot be reached, trying on")
        return tub

    def remote_announce_v2(self, announcements: Iterable[object]) -> None:
        """Called by the introducer."""
        self._announced(announcements)

    def _connected(self, introducer: Any) -> None:
        asked = introducer.callRemote("get_version").addCallback(self._subscribe, introducer)
        asked.addErrback(self._refuse)

    def _subscribe(self, version: Any, introducer: Any) -> Any:
        if PROTOCOL not in version:
            raise ValueError("it does not speak version 2")
        asked = introducer.callRemote("subscribe_v2", self, SERVICE, SUBSCRIBER_INFO)
        return asked.addCallback(lambda _: self._subscribed())

    def _refuse(self, failure: Any) -> None:
        self._say(failure, "does not let us subscribe")
        self._refused()

    def _say(self, failure: Any, what: str) -> None:
        self._complain(f"{what}: {failure.getErrorMessage() or failure.type.__name__}")
