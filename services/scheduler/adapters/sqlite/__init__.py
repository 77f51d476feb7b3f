"""The ledger in one SQLite file. Start reading at `ledger.py`."""
