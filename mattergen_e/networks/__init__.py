"""The small models beside MatterGen: autoencoder and predictor of densities of states; what their trainings share."""
