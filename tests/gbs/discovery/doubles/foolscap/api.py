"""Tubs that connect to the script instead of an introducer."""

import json
import os
from pathlib import Path

from twisted.internet import reactor


class RemoteInterface:
    pass


class Referenceable:
    pass


def Any():
    return object()


def DictOf(key, value):
    return object()


def SetOf(element):
    return object()


class Failure:
    def __init__(self, error):
        self.type = type(error)
        self._error = error

    def getErrorMessage(self):
        return str(self._error)


class Deferred:
    """One whose result is there already."""

    def __init__(self, result=None, error=None):
        self._result, self._error = result, error

    def addCallback(self, function, *arguments):
        if self._error is not None:
            return self
        try:
            made = function(self._result, *arguments)
        except Exception as error:
            return Deferred(error=error)
        return made if isinstance(made, Deferred) else Deferred(made)

    def addErrback(self, function, *arguments):
        if self._error is None:
            return self
        return Deferred(function(Failure(self._error), *arguments))


class Introducer:
    """The remote reference to what the script plays."""

    def __init__(self, script):
        self._script = script

    def callRemote(self, name, *arguments):
        if name == "get_version":
            return Deferred({key.encode(): {} for key in self._script["version"]})
        assert name == "subscribe_v2", name
        subscriber, service, info = arguments
        assert service == b"storage"
        assert all(isinstance(key, bytes) for key in info)
        for delay, action in enumerate(self._script["then"]):
            if action[0] == "refuse":
                return Deferred(error=RuntimeError(action[1]))
            reactor.callLater(delay / 10, self._play, subscriber, action)
        return Deferred()

    @staticmethod
    def _play(subscriber, action):
        if action[0] == "crash":
            os._exit(7)
        announcements = {tuple(part.encode() for part in signed) for signed in action[1]}
        subscriber.remote_announce_v2(announcements)


class Tub:
    def __init__(self):
        self._script = json.loads(Path(os.environ["INTRODUCER_SCRIPT"]).read_text())
        self.options = {}

    def setOption(self, name, value):
        self.options[name] = value

    def startService(self):
        assert self.options["accept-gifts"] is False

    def stopService(self):
        pass

    def connectTo(self, furl, connected):
        if furl == self._script["furl"]:
            reactor.callLater(0, connected, Introducer(self._script))

    def getReference(self, furl):
        if furl == self._script["furl"]:
            return Deferred(Introducer(self._script))
        return Deferred(error=ConnectionRefusedError("Connection refused"))
