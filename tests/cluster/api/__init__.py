"""An API server in one process: the store, the verbs on it, and HTTP."""
