"""Fixtures that tests of several kinds share."""

from tests.contract.object_servers import ministack, moto, seaweedfs

__all__ = ["ministack", "moto", "seaweedfs"]
