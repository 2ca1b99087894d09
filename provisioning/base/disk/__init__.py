"""What is on disk: files that survive a power cut, the build lock, artefacts by key, memos."""
