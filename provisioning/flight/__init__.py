"""What an aircraft installs: Manifest, signature, verifier, generations. Standard library and cryptography alone."""
