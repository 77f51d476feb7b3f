"""The API configuration: from a YAML file to checked, typed values, and from those to the `spec` document.

`document` turns YAML into plain values, `reader` reads them key by key, `parse` and `containers` know every key and
its rules, `model` is what comes out, `spec` derives ids and the JSON document that is kept and shown, `port_use` says
what a configuration means for ports.
"""

from services.scheduler.domain.api_config.parse import parse_api_file
from services.scheduler.domain.api_config.port_use import mentions_port, probe_ports
from services.scheduler.domain.api_config.spec import load_api

__all__ = ["load_api", "mentions_port", "parse_api_file", "probe_ports"]
