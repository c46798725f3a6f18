"""A request behind every door: where it is sent, its bounds, its inputs checked, its sampling."""
