"""What a run leaves: the result's schema and the prediction beside it."""
