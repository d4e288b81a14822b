"""What generation can be told beyond MatterGen's numbers: spectra, whole or in a window."""
