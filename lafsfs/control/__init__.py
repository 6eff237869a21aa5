"""Talking to a running mount: a Unix socket, lines of JSON (see :mod:`lafsfs.control.messages`)."""
