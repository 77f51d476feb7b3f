"""What the use cases need from the world, by subject. `adapters/` makes it real; tests may make it different."""
