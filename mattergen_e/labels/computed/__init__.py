"""Labels that GPAW calculates for crystals."""
