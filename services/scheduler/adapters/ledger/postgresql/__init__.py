"""PostgreSQL: a server, and any number of schedulers of which one at a time writes. Start reading at `engine.py`."""
