"""What an engine directory says of itself: engine.json."""
