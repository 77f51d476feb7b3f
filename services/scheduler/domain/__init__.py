"""The pure core: rules and values. No I/O, no protobuf, no clock."""
