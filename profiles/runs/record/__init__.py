"""What a run leaves: its journal, the result's schema, the prediction beside it."""
