"""What fn3hw is compared with, one file each. Nothing else in the package imports from here but `compare`."""
