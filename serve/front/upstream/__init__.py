"""Where the front gets its tokens: the engine's socket or Triton."""
