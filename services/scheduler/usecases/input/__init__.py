"""A job's items: where they come from, how they are cut into batches, and how they are read again."""
