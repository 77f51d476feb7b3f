"""Generated stubs of protos/cortex/batch/v1. Never edited: `make gen` writes them."""
