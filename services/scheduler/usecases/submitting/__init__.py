"""Taking jobs on: everything is checked before anything is stored, and stored before it is acknowledged."""
