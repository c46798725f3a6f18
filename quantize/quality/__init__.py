"""What quantization costs: errors by layer, bits per byte, an engine's own."""
