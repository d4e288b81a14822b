"""What a training run needs besides the model and the data: a seed and a record of what made it."""
