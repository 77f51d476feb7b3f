"""The gateway: HTTP/JSON in, gRPC out."""
