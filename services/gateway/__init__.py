"""HTTP/JSON in, gRPC out. Keeps no state and parses no item.

A request passes `observe.py` (id, log, metrics, span), `guards.py` (who may call), a route in `routes/`, and the
scheduler's stub in `scheduler.py`. Every error leaves through `problems.py`.
"""
