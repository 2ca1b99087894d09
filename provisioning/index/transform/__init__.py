"""What is done to descriptors before they are compared."""
