"""An HTTP/1.1 client that stamps each event when its bytes arrive."""
