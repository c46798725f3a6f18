"""The program that the native step runs: emitted from the description, packed, checked."""
