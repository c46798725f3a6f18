"""Files of tensors, each entry checked against the file before anything is mapped."""
