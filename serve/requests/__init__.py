"""A request behind every door: its bounds, its inputs checked, its sampling."""
