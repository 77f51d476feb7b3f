"""The scheduler: validates and splits jobs, owns the ledger, leases batches, decides job states, runs workers."""
