"""Labels from finished VASP calculations."""
