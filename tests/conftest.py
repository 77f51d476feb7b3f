"""What tests of several kinds share."""

import signal

from tests.contract.object_servers import ministack, moto, seaweedfs

__all__ = ["ministack", "moto", "seaweedfs"]

# Somebody who runs the tests in the background may have Ctrl-C ignored, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
