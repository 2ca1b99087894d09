"""A verified generation as one file, whole or as what changed since an earlier one."""
