"""The small models beside MatterGen, autoencoder and predictor of densities of states, and what their trainings share."""
