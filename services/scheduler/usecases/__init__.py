"""What the scheduler does, written against ports: awaits, but knows no vendor."""
