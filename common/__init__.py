"""What every family of colorizers shares: colour, pictures, data, training, evaluation."""
