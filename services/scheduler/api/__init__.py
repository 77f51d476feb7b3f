"""The gRPC side: protobuf in, protobuf out, no decisions."""
