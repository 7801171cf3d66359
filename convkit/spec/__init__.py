"""What the user says: tensors, config.txt, recipes. Pure data; nothing here imports numpy or a framework."""
