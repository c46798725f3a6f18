"""HTTP below the API: access, bounds, errors, events, TLS."""
