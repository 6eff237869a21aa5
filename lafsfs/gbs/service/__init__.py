"""A storage directory offered to others: the server's end of the HTTPS storage protocol.

``lafsfs serve`` runs it, and tests run it beside their client::

    async with LocalServer.open(...) ..., running_service(server, identity) as service:
        service.nurl
"""

from lafsfs.gbs.service.identity import ServiceIdentity, open_identity
from lafsfs.gbs.service.limits import Limits
from lafsfs.gbs.service.run import Service, running_service

__all__ = ["Limits", "Service", "ServiceIdentity", "open_identity", "running_service"]
