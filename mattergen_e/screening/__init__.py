"""From many generated crystals to the few that are worth DFT (DOSMatGen, section 3.3).

Relax with an interatomic potential, keep what is stable enough, rank by the distance of the spectrum from the target,
write the best ones with inputs for DFT. `settings` says what is asked for, `target` reads the spectrum, `energies` and
`spectra` compute what is known of each crystal, `ranking` decides, `plots`, `dft` and `output` write, `run` joins them.
`gpaw_dos` is a script that stands alone; the shortlist gets a copy.
"""
