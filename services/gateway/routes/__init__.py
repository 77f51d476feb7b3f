"""The routes, one module a subject. Each has `routes(...)`, which takes what its handlers need."""
