"""What a user holds fixed while the rest is generated: types, descriptors and spectra of sites, and a template."""
