"""What is computed of logits: figures of each token, and the errors of their means."""
