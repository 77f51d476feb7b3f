"""The services: gateway, scheduler, dequeuer and collector. They meet only through `cortex.batch.v1`."""
