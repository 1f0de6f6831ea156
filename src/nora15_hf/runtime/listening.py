# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Ports that servers of this package listen to."""

import errno
import ipaddress
import socket


def listen(host: str, port: int) -> socket.socket:
    """
    A socket that listens to a port.

    Raises:
        OSError: The port is in use, or the host is not one of this machine; the option that changes it is named.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"Port {port} of {host} is in use. Choose another one with --port.") from error
        raise OSError(
            f"The server cannot listen on {host}:{port} ({error.strerror}). Choose another address of this machine with --host, or "
            "another --port."
        ) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


__all__ = ["is_loopback", "listen"]
