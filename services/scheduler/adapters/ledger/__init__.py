"""The ledger in SQL: one layer of statements, on SQLite or PostgreSQL. Start reading at `ledger.py`."""
