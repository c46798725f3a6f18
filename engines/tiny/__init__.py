"""Two tiny trained models that come with the package, and random checkpoints of any size."""
