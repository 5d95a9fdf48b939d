"""What everything else stands on: types, errors, files, tensors, pytrees and the registry."""
