"""What fn3hw is compared with; README.md beside this says how. Nothing else in the package imports it but `compare`."""
