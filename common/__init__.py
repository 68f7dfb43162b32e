"""What every family of colorizers shares: color, pictures, data, training, evaluation."""
