"""Stock Tahoe-LAFS on loopback, for comparing with (``make bench``) and living with (interop).

    processes   a process that can be ended, killed and made to hang; waiting for conditions
    nodes       stock nodes: their directories and commands, and what they know of servers
    grids       whole grids: an introducer, storage servers, clients
    web         a client's web API

Stock runs from an environment of its own, never from ours. Every node is a process, started with
``--allow-stdin-close`` and ended by its process id. Ports are whatever is free. Nothing here sleeps
for a time: it waits for conditions, and when one does not come true it says which, with the end of
the logs.
"""

from tests.stock.grids import Grid, added_client, stock_grid, stock_node
from tests.stock.nodes import Client, Node, Shares, find_tahoe
from tests.stock.processes import Service, answers, free_ports, started, wait_until
from tests.stock.web import WebClient, WebError

__all__ = [
    "Client",
    "Grid",
    "Node",
    "Service",
    "Shares",
    "WebClient",
    "WebError",
    "added_client",
    "answers",
    "find_tahoe",
    "free_ports",
    "started",
    "stock_grid",
    "stock_node",
    "wait_until",
]
