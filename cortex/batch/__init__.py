"""The protocol package `cortex.batch`."""
