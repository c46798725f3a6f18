"""Where a plan's model comes from: known models, configs, checkpoints, formats."""
