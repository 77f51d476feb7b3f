"""The ports made real: SQLite, processes, files."""
