"""What `python -m bench` can run: in each module, `figures()` measures and tells."""
